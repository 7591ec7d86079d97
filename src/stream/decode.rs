//! Answers that a provider compresses though it was asked not to, decoded a piece at a time and within a bound. Bytes in,
//! bytes out; what comes out of a piece does not wait for the next.
//! <https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1>, <https://www.rfc-editor.org/rfc/rfc9659>

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::write::GzDecoder;
use std::io::{Error, ErrorKind, Result, Write};
use zstd::stream::raw;

/// So much may come out of one piece, which is what a read of a socket gives (64 KiB); text does not expand so far.
pub const DECODED_BYTES_MAX: usize = 4 << 20;
/// Window of a Zstandard frame: 8 MiB is what HTTP allows. That of Brotli is 16 MiB by its format, those of Gzip are small.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BUFFER_BYTES: usize = 16 << 10;

/// Takes one content coding off.
pub struct Decoder {
    coding: Coding,
    begun: bool,
}

enum Coding {
    Gzip(Box<Gzip>),
    Brotli(Box<Brotli>),
    Zstd(Zstd),
}

struct Gzip {
    decoder: GzDecoder<Sink>,
    /// A member has ended; another may follow.
    is_whole: bool,
}

struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    out: Sink,
    is_whole: bool,
}

struct Zstd {
    decoder: raw::Decoder<'static>,
    out: Sink,
    is_whole: bool,
}

/// What has been decoded and not been taken.
#[derive(Default)]
struct Sink(Vec<u8>);

impl Sink {
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> Result<usize> {
        if self.0.len() + piece.len() > DECODED_BYTES_MAX {
            return Err(Error::other("it expands beyond measure"));
        }
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// That of a content coding; `None` if nobody here knows it.
    pub fn of(coding: &[u8]) -> Option<Self> {
        Some(Self { coding: Coding::of(coding)?, begun: false })
    }

    /// What the next piece says; `end` if none follows. Nothing at all is nothing in every coding, and what follows the end
    /// of a coding is nothing.
    ///
    /// # Errors
    /// If it is not in this coding, ends before its end, or expands beyond [`DECODED_BYTES_MAX`].
    pub fn decode(&mut self, piece: &[u8], end: bool) -> Result<Bytes> {
        self.begun |= !piece.is_empty();
        if !self.begun {
            return Ok(Bytes::new());
        }
        let (out, is_whole) = match &mut self.coding {
            Coding::Gzip(gzip) => (gzip.decode(piece, end)?, true),
            Coding::Brotli(brotli) => (brotli.decode(piece)?, brotli.is_whole),
            Coding::Zstd(zstd) => (zstd.decode(piece)?, zstd.is_whole),
        };
        if end && !is_whole { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(out) }
    }
}

impl Coding {
    fn of(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
        if is("gzip") || is("x-gzip") {
            return Some(Self::Gzip(Box::new(Gzip { decoder: GzDecoder::new(Sink::default()), is_whole: false })));
        }
        if is("br") {
            let [a, b, c] = std::array::from_fn(|_| StandardAlloc::default());
            // Without the large windows that are no part of `br`.
            return Some(Self::Brotli(Box::new(Brotli { state: BrotliState::new_strict(a, b, c), out: Sink::default(), is_whole: false })));
        }
        let mut decoder = is("zstd").then(raw::Decoder::new)?.ok()?;
        decoder.set_parameter(raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
        Some(Self::Zstd(Zstd { decoder, out: Sink::default(), is_whole: false }))
    }
}

impl Gzip {
    fn decode(&mut self, mut piece: &[u8], end: bool) -> Result<Bytes> {
        while !piece.is_empty() {
            if self.is_whole {
                if !matches!(piece, [0x1f] | [0x1f, 0x8b, ..]) {
                    break;
                }
                self.decoder.try_finish()?;
                self.decoder = GzDecoder::new(Sink(std::mem::take(&mut self.decoder.get_mut().0)));
                self.is_whole = false;
            }
            let taken = self.decoder.write(piece)?;
            self.is_whole = taken == 0;
            piece = piece.get(taken..).unwrap_or_default();
        }
        if end {
            self.decoder.try_finish()?
        } else {
            self.decoder.flush()?
        }
        Ok(self.decoder.get_mut().take())
    }
}

impl Brotli {
    fn decode(&mut self, piece: &[u8]) -> Result<Bytes> {
        let (mut left, mut at, mut buffer) = (piece.len(), 0, [0; BUFFER_BYTES]);
        while !self.is_whole {
            let (mut room, mut filled, mut all) = (BUFFER_BYTES, 0, 0);
            let state = &mut self.state;
            let result = BrotliDecompressStream(&mut left, &mut at, piece, &mut room, &mut filled, &mut buffer, &mut all, state);
            self.out.write_all(buffer.get(..filled).unwrap_or_default())?;
            match result {
                BrotliResult::ResultSuccess => self.is_whole = true,
                BrotliResult::ResultFailure => return Err(ErrorKind::InvalidData.into()),
                // It gives its window away a buffer at a time.
                BrotliResult::NeedsMoreInput if filled == 0 => break,
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
        }
        Ok(self.out.take())
    }
}

impl Zstd {
    fn decode(&mut self, piece: &[u8]) -> Result<Bytes> {
        use raw::Operation;
        let (mut input, mut buffer) = (raw::InBuffer::around(piece), [0; BUFFER_BYTES]);
        while !piece.is_empty() {
            let mut output = raw::OutBuffer::around(&mut buffer[..]);
            self.is_whole = self.decoder.run(&mut input, &mut output)? == 0;
            let filled = output.pos() == BUFFER_BYTES;
            self.out.write_all(output.as_slice())?;
            if input.pos() == piece.len() && (self.is_whole || !filled) {
                break;
            }
        }
        Ok(self.out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"caf\xc3\xa9\"}}]}\n\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(text: &[u8], window_log: u32) -> Vec<u8> {
        let mut out = vec![];
        brotli::CompressorWriter::new(&mut out, 4096, 9, window_log).write_all(text).unwrap();
        out
    }

    fn all(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        vec![("gzip", gzip(text)), ("br", brotli(text, 22)), ("zstd", zstd::encode_all(text, 19).unwrap())]
    }

    #[test]
    fn whatever_the_pieces_the_same_comes_out() {
        for (coding, encoded) in all(&TEXT.repeat(40)) {
            for size in [1, 2, 7, 64, encoded.len()] {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                let mut out: Vec<u8> = encoded.chunks(size).flat_map(|piece| decoder.decode(piece, false).unwrap()).collect();
                out.extend(decoder.decode(b"", true).unwrap());
                assert_eq!(out, TEXT.repeat(40), "{coding} by {size}");
            }
        }
    }

    #[test]
    fn an_event_does_not_wait_for_the_next() {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        let mut decoder = Decoder::of(b"GZIP").unwrap();
        let mut compressor = zstd::Encoder::new(vec![], 3).unwrap();
        let mut other = Decoder::of(b" zstd ").unwrap();
        let mut brotli = brotli::CompressorWriter::new(vec![], 4096, 9, 24);
        let mut third = Decoder::of(b"br").unwrap();
        for times in [1, 7, 4000] {
            // More than a buffer holds at last, which does not wait either.
            brotli.write_all(&TEXT.repeat(times)).unwrap();
            brotli.flush().unwrap();
            assert_eq!(third.decode(&std::mem::take(brotli.get_mut()), false).unwrap(), TEXT.repeat(times));
            encoder.write_all(TEXT).unwrap();
            encoder.flush().unwrap();
            assert_eq!(decoder.decode(&std::mem::take(encoder.get_mut()), false).unwrap(), TEXT);
            compressor.write_all(TEXT).unwrap();
            compressor.flush().unwrap();
            assert_eq!(other.decode(&std::mem::take(compressor.get_mut()), false).unwrap(), TEXT);
        }
    }

    #[test]
    fn what_is_cut_or_is_something_else_is_an_error() {
        for (coding, encoded) in all(TEXT) {
            for cut in 1..encoded.len() {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                assert!(decoder.decode(&encoded[..cut], true).is_err(), "{coding} cut at {cut}");
            }
            assert!(Decoder::of(coding.as_bytes()).unwrap().decode(b"", true).unwrap().is_empty());
            let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
            assert!(decoder.decode(b"{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\"}", true).is_err(), "{coding}");
        }
        assert!(["identity", "deflate", "gzip, br", ""].iter().all(|coding| Decoder::of(coding.as_bytes()).is_none()));
    }

    #[test]
    fn what_follows_the_end_is_nothing_but_another_member_of_gzip() {
        for (coding, mut encoded) in all(TEXT) {
            encoded.extend_from_slice(b"\n\0\0");
            for size in [1, encoded.len()] {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                let decoded = encoded.chunks(size).map(|piece| decoder.decode(piece, false)).collect::<Result<Vec<_>>>();
                // Another frame of Zstandard would have to begin here.
                assert_eq!(decoded.map(|out| out.concat()).ok(), (coding != "zstd").then(|| TEXT.to_vec()), "{coding} by {size}");
            }
        }
        for size in [1, 3, 10_000] {
            let mut decoder = Decoder::of(b"gzip").unwrap();
            let members = [gzip(TEXT), gzip(b""), gzip(TEXT)].concat();
            let mut out: Vec<u8> = members.chunks(size).flat_map(|piece| decoder.decode(piece, false).unwrap()).collect();
            out.extend(decoder.decode(b"", true).unwrap());
            assert_eq!(out, TEXT.repeat(2), "by {size}");
        }
    }

    #[test]
    fn one_byte_past_the_bound_is_too_much() {
        for more in [0, 1] {
            let zeros = vec![0; DECODED_BYTES_MAX + more];
            let zstd = zstd::encode_all(&zeros[..], 3).unwrap();
            for (coding, encoded) in [("gzip", gzip(&zeros)), ("br", brotli(&zeros, 24)), ("zstd", zstd)] {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                let decoded = decoder.decode(&encoded, true).map(|out| out.len());
                assert_eq!(decoded.ok(), (more == 0).then_some(zeros.len()), "{coding}");
            }
        }
    }

    #[test]
    fn windows_are_bounded() {
        // 17 bits that say a window of 2^30 bytes, which the format of `br` does not have.
        let mut decoder = Decoder::of(b"br").unwrap();
        assert!(decoder.decode(&[0x11, 0x1e, 0, 0, 0, 0], false).is_err());
        let mut compressor = zstd::Encoder::new(vec![], 3).unwrap();
        compressor.set_parameter(zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX + 1)).unwrap();
        compressor.write_all(TEXT).unwrap();
        let mut decoder = Decoder::of(b"zstd").unwrap();
        assert!(decoder.decode(&compressor.finish().unwrap(), false).is_err());
    }
}
