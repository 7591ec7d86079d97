//! Names that providers use for one model: a name without a date, its dated snapshots, and documented aliases.

/// How the name of a snapshot or alias continues the name of its model.
enum Suffix {
    /// A text.
    Text(&'static str),
    /// A pattern: `9` is a digit, anything else is itself.
    Date(&'static str),
}

/// With the source of each.
const SUFFIXES: &[Suffix] = &[
    // https://platform.openai.com/docs/models: gpt-5-2025-08-07; also Azure, xAI, Perplexity.
    Suffix::Date("-9999-99-99"),
    // https://docs.claude.com/en/docs/about-claude/models/overview: claude-sonnet-4-5-20250929.
    Suffix::Date("-99999999"),
    // Vertex AI: claude-sonnet-4-5@20250929, https://docs.claude.com/en/api/claude-on-vertex-ai.
    Suffix::Date("@99999999"),
    // https://docs.x.ai/docs/models: grok-4-0709; https://docs.mistral.ai/getting-started/models: mistral-small-2506; gpt-4-0613.
    Suffix::Date("-9999"),
    // https://ai.google.dev/gemini-api/docs/models: gemini-2.0-flash-001, gemini-2.5-flash-preview-09-2025.
    Suffix::Date("-999"),
    Suffix::Date("-preview-99-9999"),
    Suffix::Date("-preview-99-99"),
    // OpenRouter: https://openrouter.ai/docs/models: qwen/qwen3-coder-07-25.
    Suffix::Date("-99-99"),
    // "latest" names the newest snapshot, at the providers above.
    Suffix::Text("-latest"),
    Suffix::Text("@latest"),
    Suffix::Text("@default"),
];

/// Collections that a name may stand in: https://ai.google.dev/api/models, https://docs.fireworks.ai/getting-started/quickstart.
const PREFIXES: &[&str] = &["models/", "publishers/google/models/", "publishers/anthropic/models/", "accounts/fireworks/models/"];

/// True if a provider serves both names by one model: they differ in a collection, in `latest`, or in a date that only one of
/// them has. Two snapshots with different dates are two models.
pub fn is_same_model(one: &str, other: &str) -> bool {
    let ((one, one_date), (other, other_date)) = (base(one), base(other));
    let dates_fit = one_date.is_none() || other_date.is_none() || one_date == other_date;
    !one.is_empty() && one.eq_ignore_ascii_case(other) && dates_fit
}

/// The name without its suffix, and the date that was its suffix.
fn base(name: &str) -> (&str, Option<&str>) {
    let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    // The longest suffix: `-preview-09-2025` ends like `-0725` does.
    let bases = SUFFIXES.iter().filter_map(|suffix| suffix.strip(name)).filter(|(base, _)| !base.is_empty());
    bases.min_by_key(|(base, _)| base.len()).unwrap_or((name, None))
}

impl Suffix {
    fn strip<'n>(&self, name: &'n str) -> Option<(&'n str, Option<&'n str>)> {
        match self {
            Self::Text(text) => Some((name.strip_suffix(text)?, None)),
            Self::Date(pattern) => {
                let (base, date) = name.split_at_checked(name.len().checked_sub(pattern.len())?)?;
                let fits = |(wanted, letter): (u8, u8)| if wanted == b'9' { letter.is_ascii_digit() } else { wanted == letter };
                pattern.bytes().zip(date.bytes()).all(fits).then_some((base, Some(date)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_differ_in_dates_and_collections_alone() {
        for (one, other, same) in [
            ("gpt-5", "gpt-5-2025-08-07", true),
            ("gpt-5-2025-08-07", "gpt-5", true),
            ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", true),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5", true),
            ("mistral-small-latest", "mistral-small-2506", true),
            ("models/gemini-2.5-pro", "gemini-2.5-pro", true),
            ("gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025", true),
            ("grok-4", "grok-4-0709", true),
            ("GPT-5", "gpt-5", true),
            ("gpt-5-2025-08-07", "gpt-5-2025-11-13", false),
            ("gpt-5-2025-08-07", "models/gpt-5-2025-08-07", true),
            ("gpt-5", "gpt-5-mini", false),
            ("gpt-5", "gpt-5-mini-2025-08-07", false),
            ("gpt-4", "gpt-4o", false),
            ("google/gemini-2.0-flash-exp:free", "x-ai/grok-4", false),
            ("", "", false),
            ("-latest", "", false),
        ] {
            assert_eq!(is_same_model(one, other), same, "{one} {other}");
        }
    }
}
