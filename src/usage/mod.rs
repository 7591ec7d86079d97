//! What was used: counts per dimension that never overlap, and the raw fields a provider reported them in.
//!
//! A provider's fields ([`Reported`]) repeat, correct and contain one another; [`Convention`] says how, and
//! [`Reported::settle`] turns them into a [`Usage`] whose dimensions can simply be summed. Absent is never zero.

mod convention;
mod counts;

pub use convention::{Cache, Convention, Reasoning};
use counts::Counts;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Defines an enum whose variants have stable names and index an array.
macro_rules! indexed {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// All of them, in order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The stable name, as in entries, price files and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            /// The one with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
            /// All names, to be shown to people.
            pub fn names() -> String {
                [$($text),+].join(", ")
            }
        }
    };
}
pub(crate) use indexed;

indexed! {
    /// A kind of thing that is paid for. Tokens, up to `citation`; the others count what they are called.
    Dimension {
        /// Prompt text that no cache served.
        Input = "input",
        CacheRead = "cache_read",
        /// Cache writes that live five minutes, and those whose lifetime was not reported.
        CacheWrite5m = "cache_write_5m",
        CacheWrite1h = "cache_write_1h",
        AudioIn = "audio_in",
        ImageIn = "image_in",
        VideoIn = "video_in",
        CacheReadAudio = "cache_read_audio",
        /// Text that was answered, without reasoning.
        Output = "output",
        Reasoning = "reasoning",
        AudioOut = "audio_out",
        ImageOut = "image_out",
        /// Text of cited sources (Perplexity's deep research).
        Citation = "citation",
        WebSearch = "web_search",
        /// Searches of OpenAI's earlier tool, which has a fee of its own at models that do not reason.
        WebSearchPreview = "web_search_preview",
        /// Searches among files and fetches of pages, by server-side tools.
        ToolCall = "tool_call",
        /// Runs of code, by server-side tools.
        CodeCall = "code_call",
        Request = "request",
        /// Of audio that was heard, begun ones included.
        Seconds = "seconds",
        /// Unicode characters of text that was spoken.
        Characters = "characters",
        /// Searches among documents (reranking).
        SearchUnit = "search_unit",
        /// Pictures made, where no tokens are counted.
        Picture = "picture",
    }
}

impl Dimension {
    /// Whose rate applies where this dimension has none of its own; a kind of token is charged as what contains it.
    pub fn parent(self) -> Option<Self> {
        match self {
            Self::CacheRead | Self::CacheWrite5m | Self::AudioIn | Self::ImageIn | Self::VideoIn => Some(Self::Input),
            Self::CacheWrite1h => Some(Self::CacheWrite5m),
            Self::CacheReadAudio => Some(Self::CacheRead),
            Self::Reasoning | Self::AudioOut | Self::ImageOut => Some(Self::Output),
            Self::WebSearchPreview => Some(Self::WebSearch),
            Self::Input | Self::Output | Self::Citation | Self::WebSearch | Self::ToolCall | Self::CodeCall | Self::Request => None,
            Self::Seconds | Self::Characters | Self::SearchUnit | Self::Picture => None,
        }
    }

    /// True for what goes into the model, cached or not: the count that price tiers look at.
    pub fn is_input(self) -> bool {
        (self as u8) <= Self::CacheReadAudio as u8
    }

    /// True for what is paid for by the piece.
    pub fn is_fee(self) -> bool {
        matches!(
            self,
            Self::WebSearch | Self::WebSearchPreview | Self::ToolCall | Self::CodeCall | Self::Request | Self::SearchUnit | Self::Picture
        )
    }

    /// True for tokens the model produced.
    pub fn is_output(self) -> bool {
        matches!(self, Self::Output | Self::Reasoning | Self::AudioOut | Self::ImageOut)
    }
}

/// Counts per dimension, disjoint. `None`: not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage(Counts<{ Dimension::ALL.len() }>);

impl Usage {
    /// The count, if it was reported.
    pub fn of(&self, dimension: Dimension) -> Option<u64> {
        self.0.get(dimension as usize)
    }

    /// Replaces one count.
    pub fn set(&mut self, dimension: Dimension, count: Option<u64>) {
        self.0.set(dimension as usize, count);
    }

    /// What was reported, in the order of the dimensions.
    pub fn iter(&self) -> impl Iterator<Item = (Dimension, u64)> + '_ {
        self.0.numbers().filter_map(|at| Some((*Dimension::ALL.get(at)?, self.0.get(at)?)))
    }

    /// Sum over some dimensions, `None` if none of them was reported.
    pub fn sum(&self, of: impl Fn(Dimension) -> bool) -> Option<u64> {
        self.iter().filter(|(dimension, _)| of(*dimension)).map(|(_, count)| count).reduce(u64::saturating_add)
    }

    /// True if nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Dimension, u64)> for Usage {
    fn from_iter<I: IntoIterator<Item = (Dimension, u64)>>(counts: I) -> Self {
        let mut usage = Self::default();
        for (dimension, count) in counts {
            usage.set(dimension, Some(count));
        }
        usage
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (dimension, count) in self.iter() {
            map.serialize_entry(dimension.name(), &count)?;
        }
        map.end()
    }
}

indexed! {
    /// A number in a provider's usage object, under whatever key it stands there.
    Field {
        /// All input tokens, or the uncached ones: see [`Convention::cache`].
        Input = "input",
        /// Input that tools brought in, on top of `input` (Google).
        ToolInput = "tool_input",
        Output = "output",
        Total = "total",
        CacheRead = "cache_read",
        CacheWrite = "cache_write",
        CacheWrite5m = "cache_write_5m",
        CacheWrite1h = "cache_write_1h",
        Reasoning = "reasoning",
        AudioIn = "audio_in",
        AudioOut = "audio_out",
        ImageIn = "image_in",
        ImageOut = "image_out",
        VideoIn = "video_in",
        CacheReadAudio = "cache_read_audio",
        Citation = "citation",
        WebSearch = "web_search",
        WebSearchPreview = "web_search_preview",
        ToolCall = "tool_call",
        CodeCall = "code_call",
        Seconds = "seconds",
        Characters = "characters",
        SearchUnit = "search_unit",
        Picture = "picture",
    }
}

impl Field {
    /// Calls of server-side tools that have fees.
    pub const TOOL_FEES: [Self; 3] = [Self::WebSearch, Self::ToolCall, Self::CodeCall];
}

/// The fields a provider reported, merged over one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported(Counts<{ Field::ALL.len() }>);

impl Reported {
    /// The number, if present.
    pub fn of(&self, field: Field) -> Option<u64> {
        self.0.get(field as usize)
    }

    /// Sets one number; an explicit zero counts as present.
    pub fn set(&mut self, field: Field, count: u64) {
        self.0.set(field as usize, Some(count));
    }

    /// True if a number that both state differs.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.0.numbers().any(|at| other.0.get(at).is_some_and(|count| Some(count) != self.0.get(at)))
    }

    /// Adds to one number, which is zero if it is absent.
    pub fn increase(&mut self, field: Field, count: u64) {
        self.set(field, self.of(field).unwrap_or(0).saturating_add(count));
    }

    /// Forgets one number.
    pub fn clear(&mut self, field: Field) {
        self.0.set(field as usize, None);
    }

    /// Per field the later value wins; what the later object lacks stays.
    pub fn merge(&mut self, later: &Self) {
        later.0.numbers().for_each(|at| self.0.set(at, later.0.get(at)));
    }

    /// Adds another response's fields, for one that answers in several rounds billed together.
    pub fn add(&mut self, other: &Self) {
        for at in other.0.numbers() {
            let count = other.0.get(at).unwrap_or(0);
            self.0.set(at, Some(self.0.get(at).unwrap_or(0).saturating_add(count)));
        }
    }

    /// True if nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Disjoint counts, and whether the numbers agree with one another. Parts are clamped to their whole.
    pub fn settle(&self, convention: Convention) -> (Usage, bool) {
        let mut whole = self.clone();
        whole.complete(convention);
        let (mut usage, mut consistent) = (Usage::default(), convention.reasoning != Reasoning::ByExcess || !self.exceeds_output());
        whole.settle_input(convention, &mut usage, &mut consistent);
        whole.settle_output(&mut usage, &mut consistent);
        for (field, dimension) in APART {
            usage.set(*dimension, self.of(*field));
        }
        if let Some(total) = self.of(Field::Total) {
            let sum = usage.sum(|dimension| dimension.is_input() || dimension.is_output());
            // Perplexity's total leaves out the reasoning that it states beside the completion.
            let stated = self.of(Field::Input).zip(self.of(Field::Output)).map(|(input, output)| input.saturating_add(output));
            let unstated_audio = convention.audio_by_total && self.of(Field::Seconds).is_some() && sum < Some(total);
            consistent &= sum == Some(total) || stated == Some(total) || unstated_audio;
        }
        (usage, consistent)
    }

    /// Makes `output` the whole that contains reasoning.
    fn complete(&mut self, convention: Convention) {
        if let Some(tools) = self.of(Field::ToolInput) {
            self.set(Field::Input, self.of(Field::Input).unwrap_or(0).saturating_add(tools));
        }
        let (input, output, total) = (self.of(Field::Input), self.of(Field::Output), self.of(Field::Total));
        if convention.output_by_total
            && let (Some(input), Some(total)) = (input, total)
        {
            return self.set(Field::Output, total.saturating_sub(input));
        }
        if convention.audio_by_total
            && let (Some(input), Some(audio)) = (input, self.of(Field::AudioIn))
            && total == Some(input.saturating_add(audio).saturating_add(output.unwrap_or(0)))
        {
            self.set(Field::Input, input.saturating_add(audio));
        }
        let Some(reasoning) = self.of(Field::Reasoning) else { return };
        // A model that was cut off while it thought has no other output.
        let Some(output) = output.or((convention.reasoning == Reasoning::Beside).then_some(0)) else { return };
        let beside = match convention.reasoning {
            Reasoning::Inside => false,
            Reasoning::ByExcess => self.exceeds_output(),
            Reasoning::Beside => true,
            Reasoning::ByTotal => total == input.map(|input| input.saturating_add(output).saturating_add(reasoning)),
        };
        if beside {
            self.set(Field::Output, output.saturating_add(reasoning));
        }
    }

    fn exceeds_output(&self) -> bool {
        self.of(Field::Reasoning).zip(self.of(Field::Output)).is_some_and(|(reasoning, output)| reasoning > output)
    }

    fn settle_input(&self, convention: Convention, usage: &mut Usage, consistent: &mut bool) {
        let write = self.of(Field::CacheWrite);
        let write_1h = self.of(Field::CacheWrite1h);
        // The split is finer than the sum; where both are given, what the split leaves is a five-minute write.
        let write_1h = write_1h.map(|hour| write.map_or(hour, |all| hour.min(all)));
        let write_5m = match (write, self.of(Field::CacheWrite5m), write_1h) {
            (Some(all), _, Some(hour)) => Some(all.saturating_sub(hour)),
            (Some(all), _, None) => Some(all),
            (None, split, _) => split,
        };
        let read_audio = self.of(Field::CacheReadAudio).map(|audio| audio.min(self.of(Field::CacheRead).unwrap_or(audio)));
        let read_text = self.of(Field::CacheRead).map(|all| all.saturating_sub(read_audio.unwrap_or(0)));
        let read = (Dimension::CacheRead, read_text);
        let writes = [(Dimension::CacheWrite5m, write_5m), (Dimension::CacheWrite1h, write_1h)];
        // Reads and writes that together exceed the input are the same tokens twice, and paid for twice: OpenRouter
        // for Gemini (recorded: 2,168 in, 2,161 read, 2,161 written; its own cost is 7 plain + both).
        let cached = read.1.unwrap_or(0).saturating_add(write_5m.unwrap_or(0)).saturating_add(write_1h.unwrap_or(0));
        let overlap = self.of(Field::Input).is_some_and(|input| cached > input);
        let others = [
            (Dimension::CacheReadAudio, read_audio),
            (Dimension::AudioIn, self.of(Field::AudioIn)),
            (Dimension::ImageIn, self.of(Field::ImageIn)),
            (Dimension::VideoIn, self.of(Field::VideoIn)),
        ];
        let (reads_inside, writes_inside) = match convention.cache {
            Cache::Beside => (false, false),
            Cache::Inside => (true, !overlap),
        };
        let inside = [(read, reads_inside), (writes[0], writes_inside), (writes[1], writes_inside)];
        inside.iter().filter(|(_, inside)| !inside).for_each(|((dimension, count), _)| usage.set(*dimension, *count));
        *consistent &= !(overlap && convention.cache == Cache::Inside);
        let parts = inside.into_iter().filter(|(_, inside)| *inside).map(|(part, _)| part).chain(others);
        split(self.of(Field::Input), Dimension::Input, parts, usage, consistent);
    }

    fn settle_output(&self, usage: &mut Usage, consistent: &mut bool) {
        let parts = [
            (Dimension::Reasoning, self.of(Field::Reasoning)),
            (Dimension::AudioOut, self.of(Field::AudioOut)),
            (Dimension::ImageOut, self.of(Field::ImageOut)),
        ];
        split(self.of(Field::Output), Dimension::Output, parts, usage, consistent);
    }
}

/// What is no part of anything.
const APART: &[(Field, Dimension)] = &[
    (Field::Citation, Dimension::Citation),
    (Field::WebSearch, Dimension::WebSearch),
    (Field::WebSearchPreview, Dimension::WebSearchPreview),
    (Field::ToolCall, Dimension::ToolCall),
    (Field::CodeCall, Dimension::CodeCall),
    (Field::Seconds, Dimension::Seconds),
    (Field::Characters, Dimension::Characters),
    (Field::SearchUnit, Dimension::SearchUnit),
    (Field::Picture, Dimension::Picture),
];

/// Sets `parts` and gives what they leave of `whole` to `rest`. Parts that exceed the whole are cut, in order.
fn split(
    whole: Option<u64>,
    rest: Dimension,
    parts: impl IntoIterator<Item = (Dimension, Option<u64>)>,
    usage: &mut Usage,
    consistent: &mut bool,
) {
    let mut left = whole;
    for (dimension, count) in parts {
        let Some(count) = count else { continue };
        let taken = left.map_or(count, |left| count.min(left));
        *consistent &= taken == count;
        left = left.map(|left| left - taken);
        usage.set(dimension, Some(taken));
    }
    usage.set(rest, left);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(fields: &[(Field, u64)]) -> Reported {
        let mut reported = Reported::default();
        for &(field, count) in fields {
            reported.set(field, count);
        }
        reported
    }

    #[test]
    fn later_fields_replace_and_absent_ones_stay() {
        let mut first = reported(&[(Field::Input, 10), (Field::Output, 1), (Field::CacheRead, 5)]);
        first.merge(&reported(&[(Field::Output, 7), (Field::CacheRead, 0)]));
        assert_eq!(first, reported(&[(Field::Input, 10), (Field::Output, 7), (Field::CacheRead, 0)]));
    }

    #[test]
    fn splits_by_convention() {
        let cached = [(Field::Input, 100), (Field::CacheRead, 60), (Field::CacheWrite, 10), (Field::Output, 9), (Field::Reasoning, 4)];
        let (inside, consistent) = reported(&cached).settle(Convention::OPENAI);
        assert!(consistent);
        assert_eq!(inside.of(Dimension::Input), Some(30));
        assert_eq!(inside.of(Dimension::Output), Some(5));
        let (beside, _) = reported(&cached).settle(Convention::ANTHROPIC);
        assert_eq!(beside.of(Dimension::Input), Some(100));
        assert_eq!(beside.of(Dimension::CacheWrite5m), Some(10));
    }

    #[test]
    fn reasoning_beside_output_is_told_by_the_total() {
        let convention = Convention { reasoning: Reasoning::ByTotal, ..Convention::OPENAI };
        let beside = reported(&[(Field::Input, 10), (Field::Output, 5), (Field::Reasoning, 20), (Field::Total, 35)]);
        assert_eq!(beside.settle(convention).0.sum(Dimension::is_output), Some(25));
        let inside = reported(&[(Field::Input, 10), (Field::Output, 25), (Field::Reasoning, 20), (Field::Total, 35)]);
        assert_eq!(inside.settle(convention).0.sum(Dimension::is_output), Some(25));
    }

    #[test]
    fn more_reasoning_than_output_stands_beside_it_and_is_marked() {
        let stated = [(Field::Input, 61), (Field::Output, 10), (Field::Reasoning, 96), (Field::Total, 71)];
        for (reasoning, want) in [(Reasoning::ByExcess, (Some(10), Some(96))), (Reasoning::Inside, (Some(0), Some(10)))] {
            let (usage, consistent) = reported(&stated).settle(Convention { reasoning, ..Convention::OPENAI });
            assert_eq!((usage.of(Dimension::Output), usage.of(Dimension::Reasoning), consistent), (want.0, want.1, false));
        }
    }

    #[test]
    fn audio_beside_the_prompt_is_told_by_the_total() {
        let convention = Convention { audio_by_total: true, ..Convention::OPENAI };
        let stated = |total| reported(&[(Field::Input, 9), (Field::AudioIn, 375), (Field::Output, 248), (Field::Total, total)]);
        let (beside, consistent) = stated(632).settle(convention);
        assert_eq!((beside.of(Dimension::Input), beside.of(Dimension::AudioIn), consistent), (Some(9), Some(375), true));
        assert!(!stated(600).settle(convention).1);
        assert!(!stated(632).settle(Convention::OPENAI).1);
        // Seconds alone: the total contains tokens that no field states.
        let seconds = reported(&[(Field::Input, 10), (Field::Seconds, 120), (Field::Output, 40), (Field::Total, 1550)]);
        assert_eq!([convention, Convention::OPENAI].map(|convention| seconds.settle(convention).1), [true, false]);
    }

    #[test]
    fn clamps_parts_and_says_so() {
        let (usage, consistent) = reported(&[(Field::Output, 10), (Field::Reasoning, 11)]).settle(Convention::OPENAI);
        assert_eq!((usage.of(Dimension::Reasoning), usage.of(Dimension::Output), consistent), (Some(10), Some(0), false));
        let (_, consistent) = reported(&[(Field::Input, 1), (Field::Output, 1), (Field::Total, 3)]).settle(Convention::OPENAI);
        assert!(!consistent);
    }

    #[test]
    fn tokens_read_and_written_at_once_are_both_charged() {
        let both = reported(&[(Field::Input, 2168), (Field::CacheRead, 2161), (Field::CacheWrite, 2161)]);
        let (usage, consistent) = both.settle(Convention::OPENAI);
        let want = [(Dimension::Input, 7), (Dimension::CacheRead, 2161), (Dimension::CacheWrite5m, 2161)];
        assert_eq!((usage, consistent), (want.into_iter().collect(), false));
    }

    #[test]
    fn unreported_is_not_zero() {
        let (usage, _) = reported(&[(Field::Input, 3)]).settle(Convention::OPENAI);
        assert_eq!(usage.of(Dimension::CacheRead), None);
        assert_eq!(usage.sum(Dimension::is_output), None);
    }
}
