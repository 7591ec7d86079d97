//! What came together with a provider's break reaches a caller over HTTP/2, too.

use pingora::Result;
use pingora::protocols::http::{HttpTask, ServerSession};

/// So often the connection's own task may run before a stream is reset. It was woken by what was handed to it, and writes
/// that when it runs; a caller that takes nothing is not waited for.
const TURNS: usize = 4;

/// Writes parts of an answer. A failure resets a stream of HTTP/2, and with it goes what has not been written by then.
pub async fn write(session: &mut ServerSession, mut tasks: Vec<HttpTask>) -> Result<bool> {
    let failed = tasks.iter().position(|task| matches!(task, HttpTask::Failed(_)));
    let Some(failed) = failed.filter(|at| *at > 0 && session.is_http2()) else { return session.response_duplex_vec(tasks).await };
    let failure = tasks.split_off(failed);
    session.response_duplex_vec(tasks).await?;
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    session.response_duplex_vec(failure).await
}
