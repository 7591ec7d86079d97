//! Speech and transcription as OpenAI has them. <https://platform.openai.com/docs/api-reference/audio>, streamed:
//! <https://platform.openai.com/docs/api-reference/audio/transcript-text-done-event>. Mistral's numbers:
//! <https://docs.mistral.ai/api/endpoint/audio/transcriptions>

use super::{ERROR, Grammar, Informational, Node, Slot, USAGE};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

static TRANSCRIBED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"transcript.text.done\""));
static SPOKEN: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"speech.audio.done\""));

/// Some models count tokens, others the seconds heard. Where no usage is stated, `duration` tells the seconds; begun ones
/// count (an example in the reference: 8.47 is billed as 9).
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("x_groq", Fields(&[("id", Take(Slot::Id))])),
        ("duration", Take(Slot::Begun(Field::Seconds))),
        ("error", Take(Slot::Error)),
    ]),
    usage: &[
        &[
            (&["seconds"], Field::Seconds),
            (&["prompt_audio_seconds"], Field::Seconds),
            (&["input_tokens"], Field::Input),
            (&["output_tokens"], Field::Output),
            (&["total_tokens"], Field::Total),
            (&["input_token_details", "audio_tokens"], Field::AudioIn),
            (&["output_token_details", "audio_tokens"], Field::AudioOut),
        ],
        &[(&["prompt_tokens"], Field::Input), (&["completion_tokens"], Field::Output)],
    ],
    informational: &[&[
        Informational { path: &["input_token_details", "text_tokens"], why: "text is what remains of the input" },
        Informational { path: &["output_token_details", "text_tokens"], why: "text is what remains of the output" },
    ]],
    tree: &TREE,
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    last_types: &["transcript.text.done", "speech.audio.done", "transcription.done"],
    marks: &[&TRANSCRIBED, &SPOKEN],
    ..Grammar::NONE
};
