//! A connection on which requests have to come in time: whoever sends a head a byte a minute, or nothing any more, would
//! keep it open for ever, since the protocol's own reader only bounds some of the waits.

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    /// Of a connection of HTTP/1.1, whose requests are served by its own task one after the other.
    static SERVED: Served;
}

#[derive(Default)]
struct Served {
    /// A head was read, and its request is being served.
    now: Cell<bool>,
    /// Requests so far.
    count: Cell<u32>,
}

/// Serves a connection, within which [`serves`] tells of its requests.
pub async fn connection<F: Future>(serve: F) -> F::Output {
    SERVED.scope(Served::default(), serve).await
}

/// Says that a request has come and is being served, or that the next one may come.
pub fn serves(now: bool) {
    // There is none over HTTP/2, whose requests have tasks of their own.
    let _ = SERVED.try_with(|served| {
        served.now.set(now);
        served.count.set(served.count.get().wrapping_add(u32::from(now)));
    });
}

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// For the first byte of a connection, and for the whole head of each request from its first byte.
    pub head: Duration,
    /// For the next request.
    pub idle: Duration,
}

/// One connection.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    waits: Waits,
    /// Bytes to come until it is HTTP/2's own to watch; `None` for HTTP/1.1.
    preface: Option<usize>,
    /// What was awaited when it was looked at last.
    count: u32,
    /// The head of a request has begun.
    begun: bool,
    until: Option<Instant>,
    /// May ring before `until`, never after it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    /// A connection of HTTP/1.1.
    pub fn new(inner: S, waits: Waits) -> Self {
        Self { inner, waits, preface: None, count: 0, begun: false, until: None, timer: None }
    }

    /// One of HTTP/2 that has yet to say so.
    pub fn http2(inner: S, waits: Waits, preface: usize) -> Self {
        Self { preface: Some(preface), ..Self::new(inner, waits) }
    }

    /// True while nothing has to come.
    fn is_served(&mut self) -> bool {
        if let Some(left) = self.preface {
            return left == 0;
        }
        let (now, count) = SERVED.try_with(|served| (served.now.get(), served.count.get())).unwrap_or((true, 0));
        if count != self.count {
            (self.count, self.begun, self.until) = (count, false, None);
        }
        now
    }

    fn has_read(&mut self, bytes: usize) {
        if let Some(left) = &mut self.preface {
            *left = left.saturating_sub(bytes);
        }
        if bytes > 0 && !self.begun {
            self.begun = true;
            let from = if self.count == 0 { self.until } else { None };
            // The first head has begun with the connection.
            self.until = from.or_else(|| Some(Instant::now() + self.waits.head));
        }
    }

    /// Ready once what has to come is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wait = if self.count == 0 { self.waits.head } else { self.waits.idle };
        let until = *self.until.get_or_insert_with(|| Instant::now() + wait);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let served = self.is_served();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if served {
            return polled;
        }
        let Poll::Ready(read) = polled else {
            ready!(self.poll_late(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a request took too long to come")));
        };
        self.has_read(buffer.filled().len() - before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Timed<S> {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

#[async_trait]
impl<S: IO> Peek for Timed<S> {
    async fn try_peek(&mut self, into: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(into).await
    }
}

impl<S: UniqueID> UniqueID for Timed<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: Ssl> Ssl for Timed<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S: GetTimingDigest> GetTimingDigest for Timed<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<S: GetProxyDigest> GetProxyDigest for Timed<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl<S: GetSocketDigest> GetSocketDigest for Timed<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const HEAD: Duration = Duration::from_millis(200);
    const IDLE: Duration = Duration::from_millis(500);

    fn pair() -> (Timed<DuplexStream>, DuplexStream) {
        let (inner, caller) = duplex(4096);
        (Timed::new(inner, Waits { head: HEAD, idle: IDLE }), caller)
    }

    /// How long it is read until that is too late; a byte comes now and then if it trickles.
    async fn late_after(timed: &mut Timed<DuplexStream>, caller: &mut DuplexStream, trickles: bool) -> Duration {
        let started = Instant::now();
        loop {
            let read = tokio::time::timeout(HEAD / 8, timed.read(&mut [0; 64])).await;
            match read {
                Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return started.elapsed(),
                Ok(read) => assert!(read.unwrap() > 0),
                Err(_) if trickles => caller.write_all(b"x").await.unwrap(),
                Err(_) => {}
            }
            assert!(started.elapsed() < 4 * IDLE);
        }
    }

    #[tokio::test]
    async fn heads_and_the_next_request_are_waited_for_so_long() {
        for trickles in [false, true] {
            connection(async {
                let (mut timed, mut caller) = pair();
                let first = late_after(&mut timed, &mut caller, trickles).await;
                assert!((HEAD..IDLE).contains(&first), "{first:?}");
                let (mut timed, mut caller) = pair();
                caller.write_all(b"GET").await.unwrap();
                assert_eq!(timed.read(&mut [0; 64]).await.unwrap(), 3);
                serves(true);
                // What is served has its own time, whatever comes meanwhile: a body, frames, the next head.
                caller.write_all(b"more").await.unwrap();
                assert_eq!(timed.read(&mut [0; 64]).await.unwrap(), 4);
                assert!(tokio::time::timeout(2 * IDLE, timed.read(&mut [0; 64])).await.is_err());
                serves(false);
                let next = late_after(&mut timed, &mut caller, trickles).await;
                let expected = if trickles { HEAD..IDLE } else { IDLE..2 * IDLE };
                assert!(expected.contains(&next), "{trickles} {next:?}");
            })
            .await;
        }
    }

    #[tokio::test]
    async fn http2_has_to_begin() {
        let (inner, mut caller) = duplex(4096);
        let mut timed = Timed::http2(inner, Waits { head: HEAD, idle: IDLE }, 4);
        caller.write_all(b"PRI").await.unwrap();
        let late = late_after(&mut timed, &mut caller, false).await;
        assert!((HEAD..IDLE).contains(&late), "{late:?}");
        let (inner, mut caller) = duplex(4096);
        let mut timed = Timed::http2(inner, Waits { head: HEAD, idle: IDLE }, 4);
        caller.write_all(b"PRI *").await.unwrap();
        assert_eq!(timed.read(&mut [0; 64]).await.unwrap(), 5);
        assert!(tokio::time::timeout(2 * IDLE, timed.read(&mut [0; 64])).await.is_err());
    }
}
