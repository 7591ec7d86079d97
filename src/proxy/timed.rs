//! A connection of HTTP/1.1 on which the head of a request has to be whole in time: whoever sends it a byte a minute would
//! keep it open for ever, since the protocol's own reader only bounds each wait.

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How an answer begins that is none yet: what comes then belongs to the request before it.
const INTERIM: &[u8] = b"HTTP/1.1 1";
/// How one begins after which the connection speaks something else.
const SWITCHED: &[u8] = b"HTTP/1.1 101";

/// One connection.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    head_max: Duration,
    reading: Reading,
}

/// What the caller sends.
#[derive(Debug)]
enum Reading {
    /// Nothing yet, or what was read has been answered, at least in part.
    Nothing,
    Head {
        lines: Lines,
        /// Set once it has to be waited for.
        timer: Option<Pin<Box<Sleep>>>,
        until: Instant,
    },
    /// What comes after a head.
    Rest,
    /// What is no HTTP.
    Other,
}

/// The lines of a head, wherever they are cut.
#[derive(Debug, Default)]
struct Lines {
    /// There is more in this line than its end.
    any: bool,
    /// There was a line: empty ones before the first mean nothing.
    begun: bool,
}

impl Lines {
    /// True if the head ends within this piece.
    fn end_within(&mut self, piece: &[u8]) -> bool {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            self.take(piece.get(start..end));
            if !self.any && self.begun {
                return true;
            }
            (self.begun, self.any) = (self.begun || self.any, false);
            start = end + 1;
        }
        self.take(piece.get(start..));
        false
    }

    fn take(&mut self, part: Option<&[u8]>) {
        self.any |= part.unwrap_or_default().iter().any(|byte| *byte != b'\r');
    }
}

impl<S> Timed<S> {
    /// From its first byte a head may take so long.
    pub fn new(inner: S, head_max: Duration) -> Self {
        Self { inner, head_max, reading: Reading::Nothing }
    }

    fn has_read(&mut self, piece: &[u8]) {
        if let Reading::Nothing = self.reading
            && !piece.is_empty()
        {
            self.reading = Reading::Head { lines: Lines::default(), timer: None, until: Instant::now() + self.head_max };
        }
        if let Reading::Head { lines, .. } = &mut self.reading
            && lines.end_within(piece)
        {
            self.reading = Reading::Rest;
        }
    }

    fn writes(&mut self, piece: &[u8]) {
        if piece.starts_with(SWITCHED) {
            self.reading = Reading::Other;
        } else if !matches!(self.reading, Reading::Other) && !piece.starts_with(INTERIM) {
            self.reading = Reading::Nothing;
        }
    }

    /// Ready if a head that is waited for is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Reading::Head { timer, until, .. } = &mut self.reading else { return Poll::Pending };
        timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*until))).as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buffer) else {
            ready!(self.poll_late(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request took too long")));
        };
        self.has_read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writes(data);
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.writes(data.first().map_or(&[], |first| first));
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

    const MAX: Duration = Duration::from_millis(300);

    fn timed() -> (Timed<DuplexStream>, DuplexStream) {
        let (inner, caller) = duplex(4096);
        (Timed::new(inner, MAX), caller)
    }

    /// What reading more comes to, if anything within twice the bound.
    async fn more(timed: &mut Timed<DuplexStream>) -> Option<io::Result<usize>> {
        let mut into = [0; 512];
        tokio::time::timeout(2 * MAX, timed.read(&mut into)).await.ok()
    }

    #[tokio::test]
    async fn a_head_that_trickles_is_cut_off() {
        let (mut timed, mut caller) = timed();
        // Who says nothing is not this one's to judge.
        assert!(more(&mut timed).await.is_none());
        let started = Instant::now();
        let late = loop {
            caller.write_all(b"\r\n").await.unwrap();
            match timed.read(&mut [0; 2]).await {
                Ok(read) => assert_eq!(read, 2),
                Err(error) => break error,
            }
            let (read, _) = tokio::join!(more(&mut timed), async {
                tokio::time::sleep(MAX / 4).await;
                caller.write_all(b"x").await.unwrap();
            });
            if let Some(Err(error)) = read {
                break error;
            }
        };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!((MAX..2 * MAX).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn what_follows_a_head_has_its_time() {
        for (head, answer) in [
            (&b"\r\nPOST / HTTP/1.1\r\nhost: a\r\n\r\nbo"[..], &b""[..]),
            (b"GET / HTTP/1.0\n\n", b""),
            (b"POST / HTTP/1.1\r\nexpect: 100-continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ] {
            // Wherever it is cut.
            for at in 1..head.len() {
                let (mut timed, mut caller) = timed();
                for part in [&head[..at], &head[at..]] {
                    caller.write_all(part).await.unwrap();
                    assert_eq!(timed.read(&mut [0; 512]).await.unwrap(), part.len());
                }
                timed.write_all(answer).await.unwrap();
                if answer.starts_with(SWITCHED) {
                    timed.write_all(b"a frame").await.unwrap();
                }
                caller.write_all(b"more").await.unwrap();
                assert_eq!(more(&mut timed).await.unwrap().unwrap(), 4);
                assert!(!matches!(timed.reading, Reading::Head { .. }), "{head:?} {at}");
            }
        }
    }

    #[tokio::test]
    async fn the_next_head_is_timed_too() {
        let (mut timed, mut caller) = timed();
        caller.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(more(&mut timed).await.unwrap().is_ok());
        timed.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(more(&mut timed).await.is_none(), "a connection kept alive");
        caller.write_all(b"GET").await.unwrap();
        assert!(more(&mut timed).await.unwrap().is_ok());
        assert_eq!(more(&mut timed).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
