//! Telling the caller what its answer cost: documents are held until their cost can stand in the head, streams over
//! HTTP/2 end in trailers. Works on what the wrapper is about to send.

use crate::exchange::Cost;
use http::{HeaderMap, HeaderName};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use std::sync::{Mutex, PoisonError};

/// A document is held up to so many bytes; a longer one flows, without its cost in the head.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// How the cost of an answer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Telling {
    #[default]
    Not,
    /// In the head.
    Head,
    /// In trailers.
    Trailers,
}

/// What the filters know and the wrapper sends.
#[derive(Default)]
pub struct Costs(Mutex<(Telling, Option<Cost>)>);

impl Costs {
    pub fn tell(&self, telling: Telling) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = telling;
    }

    pub fn set(&self, cost: Option<Cost>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = cost;
    }

    fn get(&self) -> (Telling, Option<Cost>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The part of an answer that is held.
#[derive(Default)]
pub struct Unsent {
    tasks: Vec<HttpTask>,
    /// Of the body.
    bytes: usize,
}

/// Decides what is sent now of what is to be sent: nothing while a document is held.
pub fn pass(costs: &Costs, unsent: &mut Unsent, tasks: Vec<HttpTask>) -> Vec<HttpTask> {
    match costs.get() {
        (Telling::Not, _) => tasks,
        (Telling::Head, cost) => hold(costs, cost, unsent, tasks),
        (Telling::Trailers, cost) if tasks.last().is_some_and(HttpTask::is_end) => end_in_trailers(tasks, cost),
        (Telling::Trailers, _) => tasks,
    }
}

fn hold(costs: &Costs, cost: Option<Cost>, unsent: &mut Unsent, tasks: Vec<HttpTask>) -> Vec<HttpTask> {
    if tasks.iter().any(|task| matches!(task, HttpTask::Failed(_))) {
        // Nothing was sent: the caller gets a clean error instead of half a document.
        unsent.tasks.clear();
        return tasks.into_iter().filter(|task| matches!(task, HttpTask::Failed(_))).collect();
    }
    unsent.bytes += tasks.iter().map(body_len).sum::<usize>();
    let ended = tasks.last().is_some_and(HttpTask::is_end);
    let alive = unsent.tasks.len() + tasks.len() > 1 && is_blank(&unsent.tasks) && is_blank(&tasks) && !ended;
    unsent.tasks.extend(tasks);
    // Blanks before a document keep a connection alive; held back they would not.
    let flows = unsent.bytes > HELD_BYTES_MAX || (alive && unsent.bytes > 0);
    if !ended && !flows {
        return vec![];
    }
    costs.tell(Telling::Not);
    let mut tasks = std::mem::take(&mut unsent.tasks);
    let head = tasks.iter_mut().find_map(|task| match task {
        HttpTask::Header(head, _) if !head.status.is_informational() => Some(head),
        _ => None,
    });
    if let (true, Some(cost), Some(head)) = (ended && unsent.bytes <= HELD_BYTES_MAX, cost, head) {
        add(head, &cost);
    }
    tasks
}

fn body_len(task: &HttpTask) -> usize {
    if let HttpTask::Body(Some(data), _) = task { data.len() } else { 0 }
}

fn is_blank(tasks: &[HttpTask]) -> bool {
    tasks.iter().all(|task| !matches!(task, HttpTask::Body(Some(data), _) if !data.trim_ascii().is_empty()))
}

fn add(head: &mut ResponseHeader, cost: &Cost) {
    for (name, value) in cost.fields() {
        // Their names are sound.
        let _ = head.insert_header(name, value);
    }
}

fn end_in_trailers(tasks: Vec<HttpTask>, cost: Option<Cost>) -> Vec<HttpTask> {
    let Some(cost) = cost else { return tasks };
    if tasks.iter().any(|task| matches!(task, HttpTask::Failed(_) | HttpTask::Header(_, true))) {
        return tasks;
    }
    let (mut out, mut trailers) = (Vec::with_capacity(tasks.len() + 1), Box::<HeaderMap>::default());
    // The end moves from wherever it stands to the trailers.
    for task in tasks {
        match task {
            HttpTask::Body(data, true) => out.extend(data.filter(|data| !data.is_empty()).map(|data| HttpTask::Body(Some(data), false))),
            HttpTask::Trailer(Some(theirs)) => trailers = theirs,
            HttpTask::Trailer(None) | HttpTask::Done => {}
            other => out.push(other),
        }
    }
    trailers.extend(cost.fields().map(|(name, value)| (HeaderName::from_static(name), value)));
    out.push(HttpTask::Trailer(Some(trailers)));
    out
}
