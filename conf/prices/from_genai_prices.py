#!/usr/bin/env python3
"""Write the embedded price catalogue, one YAML file a provider, next to this script.

    pip install genai-prices && pip install --no-deps litellm
    python3 conf/prices/from_genai_prices.py

Needs the standard library, genai-prices (MIT, by Pydantic) and the model list inside the litellm package (MIT,
by BerriAI), of which it takes two facts: the maximum of output tokens of each model, and the factors between the
rates of Google's tiers of service. The output depends on the installed releases and on TODAY below only, so running
it twice changes nothing. Corrections belong into an overlay, not into the generated files.

How genai-prices is read (see its types.py and decompose.py):

* Of several conditional prices the last one whose condition holds wins; so it is in the files.
* A variant (service tier, batch) overlays single fields of the price in force. Of several variants that
  apply the first one that sets a field wins. Here each item stands alone with the merged prices, and the
  variants are written in reverse order, so that "the last item that holds wins" says the same.
* A tier is a cliff: one over the threshold, counted on all input tokens (cached ones included), changes
  the rate of every token of the request. genai-prices knows only "more than"; a threshold of the form
  199999, its way of saying "200000 or more", is written as `over: 200000, inclusive: true`.
* A token kind without a rate of its own is charged at the rate of the kind it is part of.
"""

import json
import re
import sys
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import facts
from genai_prices import __version__
from genai_prices.data import providers
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

TODAY = date(2026, 11, 25)
# An item that a later one fully replaced before this day is left out.
FORGET_BEFORE = TODAY.replace(year=TODAY.year - 1)

# Our name of the provider -> the name genai-prices gives it.
PROVIDERS = {
    'openai': 'openai',
    'anthropic': 'anthropic',
    'groq': 'groq',
    'fireworks': 'fireworks',
    'xai': 'x-ai',
    'perplexity': 'perplexity',
    'deepseek': 'deepseek',
    'mistral': 'mistral',
    'openrouter': 'openrouter',
    'together': 'together',
    'cerebras': 'cerebras',
    'google': 'google',
    'bedrock': 'aws',
    'azure': 'azure',
    'cohere': 'cohere',
}

# genai-prices field -> our key, in the order they are written. Where two fields map to one key the later wins.
RATES = {
    'input_mtok': 'input',
    'cache_read_mtok': 'cache_read',
    'cache_write_mtok': 'cache_write_5m',
    'cache_write_5m_mtok': 'cache_write_5m',
    'cache_write_1h_mtok': 'cache_write_1h',
    'input_audio_mtok': 'audio_in',
    'input_image_mtok': 'image_in',
    'input_video_mtok': 'video_in',
    'cache_audio_read_mtok': 'cache_read_audio',
    'output_mtok': 'output',
    'output_reasoning_mtok': 'reasoning',
    'output_audio_mtok': 'audio_out',
    'output_image_mtok': 'image_out',
    'output_citation_mtok': 'citation',
    'input_mchars': 'characters',
}
# Dollars an hour of what we count in seconds.
HOURS = {'audio_hours': 'seconds', 'input_audio_hours': 'seconds'}
FEES = {'web_searches_kcount': 'web_search', 'storage_searches_kcount': 'tool_call', 'requests_kcount': 'request'}

# What genai-prices has in code (types.py, `ModelInfo.calc_price`): Groq charges ten seconds at least.
MINIMUM = {('groq', 'whisper-large-v3'): '{seconds: 10}', ('groq', 'whisper-large-v3-turbo'): '{seconds: 10}'}

# What genai-prices does not know: Anthropic asks a tenth more for what runs in the US, of every kind of token, of
# Claude Opus 4.6 and all later models; earlier ones cannot be bound to a region.
# https://platform.claude.com/docs/en/about-claude/pricing, https://platform.claude.com/docs/en/manage-claude/data-residency
REGIONS = {'anthropic': '{us: 1.1}'}
WITHOUT_REGIONS = re.compile(r'claude-(v1|2|instant|3-.*|haiku-4-5|opus-4-[0-5]|sonnet-4-[0-5])(-.*)?')
REGIONS_VERSION = 'regions-2026-11'
REGION_SOURCES = {'anthropic': ['https://platform.claude.com/docs/en/about-claude/pricing']}

# Condition of a variant -> our condition. `speed` (Anthropic's fast mode) and `route` (an OpenRouter
# endpoint) have no key of their own: without these items their users would be charged too little.
CONTEXTS = {
    'service_tier': lambda v: ('service_tier', v),
    'processing': lambda v: ('batch', True) if v == 'batch' else None,
    'region': lambda v: ('region', v),
    'inference_geo': lambda v: ('region', v),
    'speed': lambda v: ('service_tier', v),
    'route': lambda v: ('region', v),
}
BORROWED = {'speed': 'service_tier', 'route': 'region'}

# Our name of the provider -> the prefixes and `litellm_provider` names of its models in litellm's list.
OUTPUT_LIMITS = {
    'openai': ([''], ['openai', 'text-completion-openai']),
    'anthropic': ([''], ['anthropic']),
    'groq': (['groq/'], ['groq']),
    'fireworks': (['fireworks_ai/', 'fireworks_ai/accounts/fireworks/models/'], ['fireworks_ai']),
    'xai': (['xai/'], ['xai']),
    'perplexity': (['perplexity/'], ['perplexity']),
    'deepseek': (['deepseek/', ''], ['deepseek']),
    'mistral': (['mistral/'], ['mistral']),
    'openrouter': ([], []),
    'together': (['together_ai/'], ['together_ai']),
    'cerebras': (['cerebras/'], ['cerebras']),
    'google': (['gemini/', '', 'vertex_ai/'], ['gemini', 'vertex_ai-language-models', 'vertex_ai-anthropic_models']),
    'bedrock': (['', 'bedrock/'], ['bedrock', 'bedrock_converse']),
    'azure': (['azure/', 'azure_ai/'], ['azure', 'azure_ai']),
    'cohere': ([''], ['cohere', 'cohere_chat']),
}


@cache
def litellm():
    """The installed litellm package. Loaded on first use: importing this module needs genai-prices alone."""
    return distribution('litellm')


@cache
def litellm_models():
    """litellm's model list: name -> properties."""
    file = litellm().locate_file('litellm/model_prices_and_context_window_backup.json')
    return json.loads(Path(str(file)).read_text(encoding='utf-8'))


# A regular expression for a name with a date behind it.
DATED = re.compile(r'\^?((?:[A-Za-z0-9/_-]|\\?\.)+?)(?:\(\?:)?-\\d\{(?:8\}|4\}-\\d\{2\}-\\d\{2\})\)?\??\$?')
PLAIN = re.compile(r'[A-Za-z][A-Za-z0-9._/-]*')
RESERVED = {'true', 'false', 'yes', 'no', 'on', 'off', 'y', 'n', 'null', 'nan', 'inf'}


def text(s):
    if PLAIN.fullmatch(s) and s.lower() not in RESERVED:
        return s
    return '"' + s.replace('\\', '\\\\').replace('"', '\\"') + '"'


def url(s):
    return s if re.fullmatch(r"https?://[A-Za-z0-9._/%=?&~-]+", s) else text(s)


def number(d):
    s = format(Decimal(d), 'f')
    return s.rstrip('0').rstrip('.') if '.' in s else s


def flow(mapping):
    return '{' + ', '.join(f'{k}: {v}' for k, v in mapping.items()) + '}'


def clauses(match):
    if isinstance(match, ClauseOr):
        for part in match.or_:
            yield from clauses(part)
    else:
        yield match


# A date of eight digits, a digit, and the speech models, each as the package writes them.
EIGHT_DIGITS = re.compile(r'\^([a-z0-9-]+)\[-@\]\\d\{8\}\$')
DIGIT = re.compile(r'\^((?:[a-z0-9-]|\\\.)+)\\d')
NOT_TTS = '^(?!.*-[tT][tT][sS](?:$|-))'


def patterns_of(c):
    """The patterns of a clause, and the patterns of names that they do not cover. Ends the generation for a clause that
    cannot be written: without it, a model would be unpriced."""
    if isinstance(c, ClauseEquals):
        return [c.equals], []
    if isinstance(c, ClauseStartsWith):
        return [c.starts_with + '*'], []
    if isinstance(c, ClauseEndsWith):
        return ['*' + c.ends_with], []
    if isinstance(c, ClauseContains):
        return ['*' + c.contains + '*'], []
    if isinstance(c, ClauseRegex):
        if dated := DATED.fullmatch(c.regex):
            # A dated snapshot; every date of this century starts so.
            return [re.sub(r'\\(.)', r'\1', dated[1]) + '-20*'], []
        if dated := EIGHT_DIGITS.fullmatch(c.regex):
            return [dated[1] + '-20*', dated[1] + '@20*'], []
        if version := DIGIT.fullmatch(c.regex):
            name = version[1].replace('\\.', '.')
            return [f'{name}{digit}*' for digit in range(10)], []
    if isinstance(c, ClauseAnd):
        match c.and_:
            case [one, ClauseRegex(regex=regex)] if regex == NOT_TTS:
                return patterns_of(one)[0], ['*-tts', '*-tts-*']
    sys.exit(f'{c!r} cannot be written as patterns')


def patterns(model):
    """The match list of a model, and the names that its patterns do not cover."""
    found, outside, without = [], [], False
    if model.is_match(model.id):
        found.append(model.id)
    for c in clauses(model.match):
        covered, excepted = patterns_of(c)
        outside += [p for p in excepted if p not in outside]
        without |= not excepted and any('*' in p for p in covered)
        for pattern in covered:
            if not pattern.strip('*') or '*' in pattern[1:-1]:
                sys.exit(f'{model.id}: {pattern!r} is not a pattern')
            if pattern.lower() not in (p.lower() for p in found):
                found.append(pattern)
    if outside and without:
        sys.exit(f'{model.id}: what one clause leaves out, another covers')
    return found, outside


@cache
def anywhere():
    """The most output tokens of a model of this name at any provider."""
    most = {}
    for name, listed in litellm_models().items():
        tokens = listed.get('max_output_tokens')
        if isinstance(tokens, int) and tokens > 0:
            name = name.rsplit('/', 1)[-1]
            most[name] = max(tokens, most.get(name, 0))
    return most


def max_output(provider, model, match):
    """The most output tokens of any model that the entry matches by name: at this provider, else at any. None if the
    list has none of them."""
    prefixes, sellers = OUTPUT_LIMITS[provider]
    found = []
    for name in dict.fromkeys([model.id, *(p.rstrip('*') for p in match if not p.startswith('*'))]):
        for prefix in prefixes:
            listed = litellm_models().get(prefix + name, {})
            tokens = listed.get('max_output_tokens')
            if listed.get('litellm_provider') in sellers and isinstance(tokens, int) and tokens > 0:
                found.append(tokens)
    names = anywhere()
    elsewhere = [names[base] for p in [model.id, *match] if (base := p.strip('*').rsplit('/', 1)[-1]) in names]
    return max(found or elsewhere, default=None)


def fields(price):
    return {k: v for k, v in vars(price).items() if v is not None}


def price_of(merged, more_rates, more_fees):
    """rates, tiers, fees and hours of one item as a mapping of YAML texts; None if nothing can be said. The package does
    not know `more_rates` and `more_fees` of the model."""
    rates, fees, hours, tiered = {}, {}, {}, {}
    for field, key in RATES.items():
        value = merged.get(field)
        if value is None:
            continue
        if isinstance(value, TieredPrices):
            tiered[key] = value
            value = value.base
        else:
            tiered.pop(key, None)
        rates[key] = number(value)
    for table, into in ((FEES, fees), (HOURS, hours)):
        for field, key in table.items():
            if field in merged:
                if isinstance(merged[field], TieredPrices):
                    sys.exit(f'tiered fee {field}')
                into[key] = number(merged[field])
    if not rates and not fees and not hours:
        return None
    rates = {key: rates.get(key, more_rates.get(key)) for key in dict.fromkeys(RATES.values()) if key in rates or key in more_rates}
    fees = {**more_fees, **fees}
    fees = {fee: fees[fee] for fee in facts.FEE_ORDER if fee in fees}
    out = {'rates': flow(rates)} if rates else {}
    tiers = []
    for start in sorted({t.start for v in tiered.values() for t in v.tiers}):
        in_force = {}
        for key, value in tiered.items():
            passed = [t.price for t in value.tiers if t.start <= start]
            in_force[key] = number(passed[-1] if passed else value.base)
        # "More than 199999" is "200000 or more".
        inclusive = start % 1000 == 999
        tiers.append(flow({
            'over': start + 1 if inclusive else start,
            'inclusive': 'true' if inclusive else 'false',
            'rates': flow(in_force),
        }))
    if tiers:
        out['tiers'] = '[' + ', '.join(tiers) + ']'
    if fees:
        out['fees'] = flow(fees)
    if hours:
        out['hours'] = flow(hours)
    return out


def both(a, b):
    """Both constraints as one (from, utc)."""
    start, window = None, None
    for c in (a, b):
        if isinstance(c, StartDateConstraint):
            start = max(start, c.start_date) if start else c.start_date
        elif isinstance(c, TimeOfDateConstraint):
            if window:
                sys.exit('two times of day in one item')
            if any(t.utcoffset() for t in (c.start_time, c.end_time)) or c.start_time.second or c.end_time.second:
                sys.exit('time of day that is not in whole minutes of UTC')
            window = (c.start_time.strftime('%H:%M'), c.end_time.strftime('%H:%M'))
        elif c is not None:
            sys.exit(f'unknown constraint {c!r}')
    return start, window


def implied(c, by):
    """Whether constraint `c` holds whenever `by` does."""
    if c is None or c == by:
        return True
    return (
        isinstance(c, StartDateConstraint)
        and isinstance(by, StartDateConstraint)
        and c.start_date <= by.start_date
    )


def conditions(when):
    """Our conditions for a variant's `when`, None if there is no place for one of them."""
    out = {}
    for key, value in when.items():
        place = CONTEXTS.get(key, lambda v: None)(value)
        if place is None:
            return None
        out[place[0]] = place[1]
    return out


def items(provider, model, minimum, notes):
    base = model.prices
    if isinstance(base, ModelPrice):
        base = [ConditionalPrice(prices=base)]
    if base[0].constraint is not None:
        sys.exit(f'{model.id}: the first price has a condition, yet genai-prices falls back to it')
    variants = [v for v in model.price_variants or [] if fields(v.prices)]

    # (conditions, from, utc, merged fields), the last that holds wins
    made = []
    for c in base:
        made.append(({}, *both(c.constraint, None), fields(c.prices)))
    for v in reversed(variants):
        when = conditions(v.when)
        if when is None:
            name = ', '.join(f'{k}={x}' for k, x in v.when.items())
            notes['contexts'].setdefault(name, []).append(model.id)
            continue
        for key in v.when:
            if key in BORROWED:
                notes['borrowed'].setdefault(key, []).append(model.id)
        # What surely applies together with this variant; the first one that sets a field wins.
        over = {}
        for w in variants:
            if w.when.items() <= v.when.items() and implied(w.constraint, v.constraint):
                for k, x in fields(w.prices).items():
                    over.setdefault(k, x)
        for c in base:
            made.append((when, *both(c.constraint, v.constraint), {**fields(c.prices), **over}))

    kept = []
    for i, (when, start, window, merged) in enumerate(made):
        replaced = any(
            later_when == when
            and later_window is None
            and (later is None or later <= max(start or date.min, FORGET_BEFORE))
            for later_when, later, later_window, _ in made[i + 1 :]
        )
        if not replaced:
            kept.append((when, start, window, merged))

    out = []
    for when, start, window, merged in kept:
        for field in merged:
            if field not in RATES and field not in FEES and field not in HOURS:
                notes['fields'].setdefault(field, {})[model.id] = None
        price = price_of(merged, facts.added(facts.RATES, provider, model.id), facts.added(facts.FEES, provider, model.id))
        if price is None:
            if merged:
                notes['models'].append(f'{model.id}: priced in {", ".join(merged)} only')
                return None
            # No prices at all means free to genai-prices; believe it only where the name says so.
            if not model.id.endswith(':free') and model.id != 'moderation':
                notes['models'].append(f'{model.id}: without any price')
                return None
            price = {'rates': '{input: 0, output: 0}'}
        item = {k: 'true' if x is True else text(x) for k, x in when.items()}
        if start:
            item['from'] = start.isoformat()
        if window:
            item['utc'] = '["%s", "%s"]' % window
        item.update(price)
        if minimum:
            item['minimum'] = minimum
        out.append(flow(item))
    return out


# Our key -> litellm's, of rates that Google's tiers of service change.
TIERED = {
    'input_mtok': 'input_cost_per_token',
    'output_mtok': 'output_cost_per_token',
    'cache_read_mtok': 'cache_read_input_token_cost',
    'input_audio_mtok': 'input_cost_per_audio_token',
    'cache_audio_read_mtok': 'cache_read_input_audio_token_cost',
    'output_image_mtok': 'output_cost_per_image_token',
    'output_reasoning_mtok': 'output_cost_per_reasoning_token',
}
# What no tier of service changes.
UNTIERED = set(FEES)


def in_tier(listed, tier, merged):
    """The fields of a price in a tier of service, by the factors between litellm's rates; None if one is not known."""
    out = {}
    for field, value in merged.items():
        if field in UNTIERED:
            out[field] = value
            continue
        key = TIERED.get(field)
        usual, there = (listed.get(name) for name in (key, f'{key}_{tier}'))
        if not usual or there is None:
            return None
        # litellm writes rates as floats; as decimals they are the figures of the page.
        usual, there = (Decimal(repr(figure)) for figure in (usual, there))
        if isinstance(value, TieredPrices):
            tiers = [replace(t, price=t.price * there / usual) for t in value.tiers]
            value = replace(value, base=value.base * there / usual, tiers=tiers)
            figures = [value.base, *(t.price for t in tiers)]
        else:
            value = value * there / usual
            figures = [value]
        if any(figure.normalize().as_tuple().exponent < -8 for figure in figures):
            return None
        out[field] = value
    return out


def service_tiers(provider, model):
    """Price items of Google's tiers of service, which genai-prices does not have and litellm lists by model."""
    listed = litellm_models().get(f'gemini/{model.id}') if provider == 'google' else None
    out = []
    for tier in ('flex', 'priority') if listed else ():
        base = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
        for c in base if model.price_variants is None or all('service_tier' not in v.when for v in model.price_variants) else ():
            start, window = both(c.constraint, None)
            merged = in_tier(listed, tier, fields(c.prices))
            if window or merged is None:
                continue
            price = price_of(merged, {}, facts.added(facts.FEES, provider, model.id))
            out.append(flow({'service_tier': tier, **({'from': start.isoformat()} if start else {}), **price}))
    return out


def some(names, limit=8):
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def write(name, provider):
    notes = {'fields': {}, 'contexts': {}, 'borrowed': {}, 'models': []}
    body, tiered, count, priced, limits = [], [], 0, 0, 0
    for model in provider.models:
        prices = items(name, model, MINIMUM.get((name, model.id)), notes)
        if prices is None:
            continue
        more = service_tiers(name, model)
        tiered += more
        prices += more
        match, outside = patterns(model)
        count += 1
        priced += len(prices)
        body.append(f'  {text(model.id)}:')
        body.append('    match: [' + ', '.join(text(p) for p in match) + ']')
        if outside:
            body.append('    not: [' + ', '.join(text(p) for p in outside) + ']')
        if name in REGIONS and not WITHOUT_REGIONS.fullmatch(model.id):
            body.append(f'    regions: {REGIONS[name]}')
        limit = max_output(name, model, match)
        limits += limit is not None
        if limit is not None:
            body.append(f'    max_output: {limit}')
        body.append('    prices:')
        body.extend(f'      - {p}' for p in prices)

    tiers = ' and factors of service tiers' if tiered else ''
    head = [
        f'# Generated by from_genai_prices.py from genai-prices {__version__}'
        f' (MIT, https://github.com/pydantic/genai-prices), output limits{tiers} from litellm {litellm().version}'
        ' (MIT, https://github.com/BerriAI/litellm). Do not edit: put corrections into an overlay.'
    ]
    for field, models in notes['fields'].items():
        head.append(f'# Left out, no place for it: {field} of {some(models)}')
    for context, models in notes['contexts'].items():
        head.append(f'# Left out, no place for the condition: {context} of {some(models)}')
    for key, models in notes['borrowed'].items():
        head.append(f'# The condition {key} is written as {BORROWED[key]}: {some(dict.fromkeys(models))}')
    head.append(f'provider: {name}')
    own_facts = facts.sources_of(name)
    versions = [f'genai-prices-{__version__}'] + [REGIONS_VERSION] * (name in REGIONS) + [facts.VERSION] * bool(own_facts)
    head.append(f'version: {"+".join(versions)}')
    head.append(f'checked: {TODAY}')
    also = [ours for ours, theirs in PROVIDERS.items() if theirs in (provider.fallback_model_providers or [])]
    if also:
        head.append('also: [' + ', '.join(also) + ']')
    head.append('sources: [' + ', '.join(url(u) for u in dict.fromkeys([*(provider.pricing_urls or []), *REGION_SOURCES.get(name, []), *own_facts])) + ']')
    head.append('models:')

    tail = []
    if notes['models']:
        tail.append(f'# Models left out: {len(notes["models"])}')
        tail.extend(f'#   {m}' for m in notes['models'])

    path = Path(__file__).with_name(f'{name}.yaml')
    path.write_text('\n'.join(head + body + tail) + '\n', encoding='utf-8')
    print(
        f'{path.name}: {count} models, {limits} with an output limit, {priced} price items, {len(notes["models"])} models left out',
        file=sys.stderr,
    )


def main():
    by_id = {p.id: p for p in providers}
    for name, genai_id in PROVIDERS.items():
        write(name, by_id[genai_id])


if __name__ == '__main__':
    main()
