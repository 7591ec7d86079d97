"""What genai-prices does not know of its providers' prices, each with the page that states it.

`from_genai_prices.py` adds these facts to the files that it generates. A model that genai-prices has not at all, or
has at a wrong price, stands in a hand-written file beside them (`<provider>_more.yaml`).
"""

import re

# Stamped on entries that a file with such facts prices.
VERSION = 'facts-2026-12'

OPENAI_TOOLS = 'https://developers.openai.com/api/docs/pricing#built-in-tools'
XAI_TOOLS = 'https://docs.x.ai/developers/pricing'
PERPLEXITY = 'https://docs.perplexity.ai/docs/getting-started/pricing'

VERTEX = 'https://cloud.google.com/gemini-enterprise-agent-platform/generative-ai/pricing'
VOXTRAL = 'https://docs.mistral.ai/models/voxtral-small-25-07'
SEARCH_PREVIEW = 'https://developers.openai.com/api/docs/models/gpt-4o-search-preview'

# Models of OpenAI that take server-side tools in Responses: text models, without those for pictures and sound.
OPENAI_OTHERS = r'(?!.*(image|audio|realtime|transcribe|tts|search|vision|-32k|gpt-4$|gpt-4-turbo|:extended|\.ft-))'
# Of these, the ones that do not reason.
OPENAI_PLAIN = re.compile(OPENAI_OTHERS + r'(gpt-4|chatgpt-4o).*')
OPENAI_TEXT = re.compile(OPENAI_OTHERS + r'(gpt-(4|5|6|chat)|chatgpt-4o|o[134]|codex|computer-use).*')

# Fees in dollars per thousand: provider, models by id, fees, and the page that states them. A fee that genai-prices
# states for the model stays. Of two rows for one fee the first holds.
FEES = [
    # File search is $2.50 (Responses only), web search $10. Its preview tool is $25 at models that do not reason.
    ('openai', OPENAI_PLAIN, {'web_search_preview': '25'}, OPENAI_TOOLS),
    ('openai', OPENAI_TEXT, {'web_search': '10', 'web_search_preview': '10', 'tool_call': '2.5'}, OPENAI_TOOLS),
    # Every request to this model searches once.
    ('openai', re.compile('gpt-4o-search-preview'), {'request': '25'}, SEARCH_PREVIEW),
    # Web search and X search, runs of code, searches in collections.
    ('xai', re.compile(r'grok-(?!voice).*'), {'web_search': '5', 'tool_call': '2.5', 'code_call': '5'}, XAI_TOOLS),
    # The Agent API: web_search and fetch_url.
    ('perplexity', re.compile(r'perplexity/.*'), {'web_search': '2.5', 'tool_call': '0.5'}, PERPLEXITY),
    # Searches of Claude's own tool at Vertex AI.
    ('google', re.compile(r'claude-.*'), {'web_search': '10'}, VERTEX),
]
FEE_ORDER = ['web_search', 'web_search_preview', 'tool_call', 'code_call', 'request']

# Rates in dollars per million tokens, likewise.
RATES = [
    # Audio that Voxtral hears is charged by the hour. Its tokens stand beside the text and cost nothing of their own.
    ('mistral', re.compile('voxtral-small-24b-2507'), {'audio_in': '0', 'cache_read_audio': '0'}, VOXTRAL),
]

# Names of models whose prices here differ from genai-prices on purpose: `tests/prices/grid.py` leaves them out.
DIFFERENT = {
    'gpt-4o-search-preview',
    'gpt-4o-search-preview-2025-03-11',
    'gpt-4o-mini-search-preview',
    'gpt-4o-audio-preview',
    'gpt-4o-mini-audio-preview',
    'sonar',
    'sonar-pro',
    'sonar-reasoning',
    'sonar-reasoning-pro',
    'deepseek-chat',
    'deepseek-reasoner',
    'deepseek-flash',
    'deepseek-v4-flash',
    'deepseek-v4-pro',
    'mistral-large',
    'meta-llama/Llama-3.3-70B-Instruct-Turbo',
    'mistralai/Mixtral-8x7B-Instruct-v0.1',
}


def added(table, provider, model):
    """The figures that a table adds to a model."""
    found = {}
    for of, models, figures, _ in table:
        if of == provider and models.fullmatch(model):
            for key, dollars in figures.items():
                found.setdefault(key, dollars)
    return found


def sources_of(provider):
    """The pages that state the facts about a provider."""
    return list(dict.fromkeys(source for of, _, _, source in FEES + RATES if of == provider))
