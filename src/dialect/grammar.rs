//! The grammar of a dialect's responses: where values stand, and their meaning.

use super::{Informational, Node, Tool};
use crate::json::Want;
use crate::meter::Keys;
use crate::usage::{Cache, Field, Reasoning};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

/// A value wanted from a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Usage,
    /// A usage-like object of counted tool calls (`tool_usage`).
    ToolUsage,
    Model,
    Id,
    Tier,
    Error,
    /// How fast the response was made, if that affects its price (Bedrock).
    Latency,
    /// The event's `type`.
    Type,
    /// Why the model stopped.
    Finish,
    /// The same, where the reason affects the bill (Anthropic's refusals).
    StopReason,
    /// The policy under which the model refused.
    RefusalCategory,
    /// An error code of a response with status 200; 0 is none (MiniMax).
    StatusCode,
    /// An element of `choices`, and the array itself.
    Choice,
    /// A part of what the response contains: text, a tool's call, a tool's result.
    Item,
    /// Its kind.
    ItemType,
    /// Distinguishes items of one kind: the name of the tool, or its action.
    ItemName,
    /// A tool of the request that the response repeats.
    Tool,
    ToolType,
    ToolModel,
    /// Search queries of a grounded response (Google): a list of strings.
    Queries,
    /// A source on the web, or on a map, of a grounded response.
    WebSource,
    MapSource,
    /// The id of a container in which a server-side tool ran.
    Container,
    /// Usage as someone other than the model states it, for want of better (`amazon-bedrock-invocationMetrics`).
    Metrics,
    /// A count that stands outside any usage object: of several the last holds, or their sum.
    Set(Field),
    Add(Field),
    /// A count for want of usage, rounded up.
    Begun(Field),
    /// Something that counts by being there, for want of usage.
    Each(Field),
    /// An element that matters only for what is inside.
    Ignored,
}

/// A path of object keys in a usage object and what the number there is.
pub type UsagePath = (&'static [&'static str], Field);

/// Counts in a list of objects: those whose `key` says `value` are added to a field, or taken from it.
#[derive(Debug)]
pub struct Detail {
    pub list: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub count: &'static str,
    /// `None`: what remains of the whole, which is counted elsewhere.
    pub field: Option<Field>,
    pub sign: i64,
}

/// How to read the responses of a dialect.
#[derive(Debug)]
pub struct Grammar {
    /// Serves whole bodies and single events alike.
    pub root: &'static Want<Slot>,
    /// Lists one after another: where a number may stand under several keys, the first present counts.
    pub usage: &'static [&'static [UsagePath]],
    /// Numbers that are added up to a field, unless [`Grammar::usage`] states it.
    pub parts: &'static [UsagePath],
    /// Numbers that are not charged. Whatever is in none of these lists is marked as unknown.
    pub informational: &'static [&'static [Informational]],
    /// These lists as a tree: [`Node::of`] this grammar.
    pub tree: &'static Lazy<Node>,
    /// Server-side tools, by the items that they leave in a response.
    pub tools: &'static [Tool],
    /// How events begin that matter whatever needles say.
    pub openings: &'static [&'static [u8]],
    /// How events begin after which the text of a response may be whole, while its usage is yet to come; what an opening begins, or an
    /// item that is added, goes on.
    pub closings: &'static [&'static [u8]],
    pub reopenings: &'static [&'static [u8]],
    /// Counts are cumulative over a stream: a smaller one that comes later is a defect.
    pub cumulative: bool,
    /// Lists in a usage object.
    pub details: &'static [Detail],
    /// The numbers of [`Slot::Metrics`].
    pub metrics: &'static Lazy<Node>,
    pub cache: Cache,
    /// Where the dialect says so and not the provider.
    pub reasoning: Option<Reasoning>,
    /// The last usage object holds as a whole, instead of field by field.
    pub replaces: bool,
    /// Keys (quoted) without one of which, with a value, an event cannot matter. Without any, every event does.
    pub needles: &'static [&'static Lazy<Finder<'static>>],
    /// The `type` of events that end a response.
    pub last_types: &'static [&'static str],
    /// The same types (quoted), to be looked for before anything is parsed.
    pub marks: &'static [&'static Lazy<Finder<'static>>],
    /// Types of event-stream messages that matter; all of them if there are none here.
    pub messages: &'static [&'static str],
    /// Event-stream messages wrap the event in base64.
    pub wrapped: bool,
    /// Keys of text that models write, for estimates; without any, none are made.
    pub text: Keys,
    /// The same in whole documents, where they differ from events.
    pub document_text: Keys,
}

impl Grammar {
    /// Reads nothing.
    pub(super) const NONE: Self = Self {
        root: &Want::Skip,
        usage: &[],
        parts: &[],
        informational: &[],
        tree: &EMPTY,
        tools: &[],
        openings: &[],
        closings: &[],
        reopenings: &[],
        cumulative: false,
        details: &[],
        metrics: &EMPTY,
        cache: Cache::Inside,
        reasoning: None,
        replaces: false,
        needles: &[],
        last_types: &[],
        marks: &[],
        messages: &[],
        wrapped: false,
        text: &[],
        document_text: &[],
    };
}

static EMPTY: Lazy<Node> = Lazy::new(Node::default);
