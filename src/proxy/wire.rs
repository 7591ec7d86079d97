//! A caller's connection. What is read goes straight to who reads it; what is written is gathered until it is flushed, so
//! that an answer's head and body leave in one call.

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// How HTTP/2 begins where nothing was agreed on before: RFC 9113, section 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once of what comes first.
const FIRST_BYTES: usize = 2 * 1024;
/// Bytes that are gathered at most; more are written at once.
const GATHERED_MAX: usize = 16 * 1024;
/// What an idle connection may keep for what it will gather.
const KEPT_MAX: usize = 2 * 1024;

/// Of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Read ahead, and given to who reads next; what was given already is before `read`.
    ahead: Vec<u8>,
    read: usize,
    /// Not written yet; what was written already is before `written`.
    gathered: Vec<u8>,
    written: usize,
    digest: Arc<SocketDigest>,
}

impl Wire {
    /// What is written is sent at once, however small.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn new(stream: TcpStream, peer: std::net::SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(SocketAddr::from(peer)));
        Ok(Self { stream, ahead: vec![], read: 0, gathered: vec![], written: 0, digest: Arc::new(digest) })
    }

    /// Reads ahead until it can be told which version is spoken.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn begin(&mut self) -> io::Result<Version> {
        while self.ahead.len() < PREFACE.len() && PREFACE.starts_with(&self.ahead) {
            self.ahead.reserve(FIRST_BYTES);
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                break;
            }
        }
        Ok(if self.ahead.starts_with(PREFACE) { Version::Http2 } else { Version::Http1 })
    }

    /// Writes what was gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.gathered.get(self.written..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.gathered.clear();
        self.gathered.shrink_to(KEPT_MAX);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(ahead) = self.ahead.get(self.read..).filter(|ahead| !ahead.is_empty()) else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        let (now, _) = ahead.split_at(ahead.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.read += now.len();
        if self.read == self.ahead.len() {
            (self.ahead, self.read) = (vec![], 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = data.iter().map(|piece| piece.len()).sum();
        if self.gathered.len() + bytes > GATHERED_MAX {
            ready!(self.poll_gathered(cx))?;
            if bytes > GATHERED_MAX {
                return Pin::new(&mut self.stream).poll_write_vectored(cx, data);
            }
        }
        data.iter().for_each(|piece| self.gathered.extend_from_slice(piece));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_gathered(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    /// What was not flushed is sent if it can be without waiting.
    fn drop(&mut self) {
        if let Some(left) = self.gathered.get(self.written..).filter(|left| !left.is_empty()) {
            let _ = self.stream.try_write(left);
        }
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // Gone already: as good.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl Peek for Wire {
    /// What has been read ahead, and zeros after it if that is less.
    async fn try_peek(&mut self, into: &mut [u8]) -> io::Result<bool> {
        let ahead = self.ahead.get(self.read..).unwrap_or_default();
        into.fill(0);
        into.iter_mut().zip(ahead).for_each(|(to, from)| *to = *from);
        Ok(true)
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl Ssl for Wire {}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![]
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn pair() -> (Wire, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        (Wire::new(stream, peer).unwrap(), caller)
    }

    #[tokio::test]
    async fn a_head_and_a_body_are_one_piece() {
        let (mut wire, mut caller) = pair().await;
        assert!(wire.stream.nodelay().unwrap());
        wire.write_all(b"head").await.unwrap();
        wire.write_all(b"body").await.unwrap();
        let mut into = [0; 64];
        assert_eq!(caller.try_read(&mut into).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        wire.flush().await.unwrap();
        assert_eq!(caller.read(&mut into).await.unwrap(), 8);
        // Nothing is left behind by a connection that is dropped, nor by one that is shut down.
        wire.write_all(b"rest").await.unwrap();
        drop(wire);
        assert_eq!(caller.read(&mut into).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn what_was_peeked_is_read_again() {
        let (mut wire, mut caller) = pair().await;
        caller.write_all(b"abcdef").await.unwrap();
        wire.begin().await.unwrap();
        let mut into = [1; 8];
        assert!(wire.try_peek(&mut into).await.unwrap());
        assert_eq!(&into, b"abcdef\0\0");
        assert_eq!(wire.read(&mut into[..1]).await.unwrap(), 1);
        assert!(wire.try_peek(&mut into[..2]).await.unwrap());
        let mut all = [0; 5];
        wire.read_exact(&mut all).await.unwrap();
        assert_eq!((&into[..2], &all), (&b"bc"[..], b"bcdef"));
    }

    #[tokio::test]
    async fn the_first_byte_that_is_none_of_the_preface_decides() {
        for at in 0..PREFACE.len() {
            let (mut wire, mut caller) = pair().await;
            caller.write_all(&PREFACE[..at]).await.unwrap();
            let waits = tokio::time::timeout(std::time::Duration::from_millis(10), wire.begin()).await;
            assert!(waits.is_err(), "{at}");
            caller.write_all(if at % 2 == 0 { &PREFACE[at..] } else { b"x" }).await.unwrap();
            let version = wire.begin().await.unwrap();
            assert_eq!(version == Version::Http2, at % 2 == 0, "{at}");
            let mut into = [0; PREFACE.len()];
            assert!(wire.try_peek(&mut into).await.unwrap());
            assert_eq!(into == PREFACE, at % 2 == 0, "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever the sizes of pieces and wherever they are flushed, and with a slow reader: the same bytes in their order.
        #[test]
        fn no_byte_is_lost(pieces in prop::collection::vec((0usize..40_000, any::<bool>()), 1..40)) {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
                let (mut wire, mut caller) = pair().await;
                let reader = tokio::spawn(async move {
                    let mut all = vec![];
                    caller.read_to_end(&mut all).await.unwrap();
                    all
                });
                let mut expected = vec![];
                for (at, (bytes, flush)) in pieces.into_iter().enumerate() {
                    let piece = vec![u8::try_from(at).unwrap(); bytes];
                    wire.write_all(&piece).await.unwrap();
                    expected.extend_from_slice(&piece);
                    if flush {
                        wire.flush().await.unwrap();
                    }
                }
                AsyncWriteExt::shutdown(&mut wire).await.unwrap();
                assert!(reader.await.unwrap() == expected);
            });
        }
    }
}
