//! How a dialect, as one provider speaks it, counts: what its numbers contain.

/// Where cached tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// `input` contains cache reads and writes (OpenAI and what is modelled on it).
    Inside,
    /// `input` is what no cache touched (Anthropic).
    Beside,
}

/// Where reasoning tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// `output` contains them.
    Inside,
    /// They come on top of `output` (Perplexity's deep research).
    Beside,
    /// On top if the total says so, else inside: xAI does one in chat completions and the other in Responses.
    /// https://docs.x.ai/docs/guides/reasoning, and recorded traffic.
    ByTotal,
    /// On top if there are more of them than of output, else inside: Gemini behind some servers that are compatible with OpenAI (recorded: 10
    /// out, 96 of reasoning, 71 in total with 61 in, and a cost for 106).
    ByExcess,
}

/// How one dialect, as one provider speaks it, counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convention {
    pub cache: Cache,
    pub reasoning: Reasoning,
    /// Output is what the total leaves after the input: Google's OpenAI-compatible endpoint shows thinking tokens
    /// nowhere else (recorded: 35 in, 12 out, 109 in total).
    pub output_by_total: bool,
    /// Audio is on top of `input` if the total says so (Mistral; recorded: 9 in, 375 audio, 248 out, 632 in total), and where only its
    /// seconds are stated, the total contains its tokens.
    pub audio_by_total: bool,
}

impl Convention {
    /// OpenAI's, and the default of everything compatible with it.
    pub const OPENAI: Self = Self { cache: Cache::Inside, reasoning: Reasoning::Inside, output_by_total: false, audio_by_total: false };
    /// Anthropic's.
    pub const ANTHROPIC: Self = Self { cache: Cache::Beside, ..Self::OPENAI };
}
