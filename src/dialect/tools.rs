//! Server-side tools, as they show in a response: each is charged, free, or unknown.

use crate::usage::Field;

/// How the work of a tool is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// Only tokens are charged, and the usage has them; or the client does the work.
    Free,
    /// The usage states the number of calls in this field.
    Usage(Field),
    /// Each item counts once in this field, unless the usage states it.
    Call(Field),
    /// Another model's tokens, stated apart (`tool_usage.image_gen`).
    Image,
}

/// Items of a kind.
#[derive(Debug)]
pub struct Tool {
    pub kind: &'static str,
    /// The name of the items, `Some("")` for items without one; `None` fits all.
    pub name: Option<&'static str>,
    pub billing: Billing,
}

impl Tool {
    /// Items that cost nothing of their own.
    pub const fn free(kind: &'static str) -> Self {
        Self { kind, name: None, billing: Billing::Free }
    }

    /// The rule for an item: the first that fits.
    pub fn find(tools: &'static [Self], kind: &str, name: &str) -> Option<&'static Self> {
        tools.iter().find(|tool| tool.kind == kind && tool.name.is_none_or(|known| known == name))
    }
}
