//! Answers that a provider compresses though it was asked not to, decoded a piece at a time and within a bound. Bytes in,
//! bytes out; what comes out of a piece does not wait for the next.
//! <https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1>, <https://www.rfc-editor.org/rfc/rfc9659>

use brotli_decompressor::DecompressorWriter;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use std::io::{Error, ErrorKind, Result, Write};
use zstd::stream::raw;

/// So much may come out of one piece, which is what a read of a socket gives (64 KiB); text does not expand so far.
pub const DECODED_BYTES_MAX: usize = 4 << 20;
/// Window of a Zstandard frame: 8 MiB is what HTTP allows.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BUFFER_BYTES: usize = 16 << 10;

/// Takes one content coding off.
pub struct Decoder {
    coding: Coding,
    begun: bool,
}

enum Coding {
    Gzip(Box<MultiGzDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
    Zstd { decoder: raw::Decoder<'static>, out: Sink, is_whole: bool },
}

/// What has been decoded and not been taken.
#[derive(Default)]
struct Sink(Vec<u8>);

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

    /// What the next piece says; `end` if none follows. Nothing at all is nothing in every coding.
    ///
    /// # Errors
    /// If it is not in this coding, ends before its end, or expands beyond [`DECODED_BYTES_MAX`].
    pub fn decode(&mut self, piece: &[u8], end: bool) -> Result<Bytes> {
        self.begun |= !piece.is_empty();
        if self.begun { self.coding.decode(piece, end) } else { Ok(Bytes::new()) }
    }
}

impl Coding {
    fn of(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
        if is("gzip") || is("x-gzip") {
            return Some(Self::Gzip(Box::new(MultiGzDecoder::new(Sink::default()))));
        }
        if is("br") {
            return Some(Self::Brotli(Box::new(DecompressorWriter::new(Sink::default(), BUFFER_BYTES))));
        }
        let mut decoder = is("zstd").then(raw::Decoder::new)?.ok()?;
        decoder.set_parameter(raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
        Some(Self::Zstd { decoder, out: Sink::default(), is_whole: false })
    }

    fn decode(&mut self, piece: &[u8], end: bool) -> Result<Bytes> {
        let out = match self {
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                if end {
                    decoder.try_finish()?
                } else {
                    decoder.flush()?
                }
                decoder.get_mut()
            }
            Self::Brotli(decoder) => {
                decoder.write_all(piece)?;
                if end {
                    decoder.close()?
                } else {
                    decoder.flush()?
                }
                decoder.get_mut()
            }
            Self::Zstd { decoder, out, is_whole } => {
                if !piece.is_empty() {
                    *is_whole = run(decoder, piece, out)?;
                }
                if end && !*is_whole {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                out
            }
        };
        Ok(std::mem::take(&mut out.0).into())
    }
}

/// True if a frame ends here.
fn run(decoder: &mut raw::Decoder<'static>, piece: &[u8], out: &mut Sink) -> Result<bool> {
    use raw::Operation;
    let mut input = raw::InBuffer::around(piece);
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let mut output = raw::OutBuffer::around(&mut buffer[..]);
        let rest = decoder.run(&mut input, &mut output)?;
        let filled = output.pos() == BUFFER_BYTES;
        out.write_all(output.as_slice())?;
        if input.pos() == piece.len() && (rest == 0 || !filled) {
            return Ok(rest == 0);
        }
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

    /// A stream whose one meta-block is not compressed: RFC 7932, section 9.2, by hand.
    fn brotli(text: &[u8]) -> Vec<u8> {
        // WBITS 16 (0), ISLAST 0, MNIBBLES 4 (00), MLEN - 1 in 16 bits, ISUNCOMPRESSED 1; then ISLAST 1, ISLASTEMPTY 1.
        let head = (u32::try_from(text.len()).unwrap() - 1) << 4 | 1 << 20;
        [&head.to_le_bytes()[..3], text, &[0b11]].concat()
    }

    fn all(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        vec![("gzip", gzip(text)), ("br", brotli(text)), ("zstd", zstd::encode_all(text, 19).unwrap())]
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
        for _ in 0..3 {
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
    fn one_byte_past_the_bound_is_too_much() {
        for more in [0, 1] {
            let zeros = vec![0; DECODED_BYTES_MAX + more];
            for (coding, encoded) in [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&zeros[..], 3).unwrap())] {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                let decoded = decoder.decode(&encoded, true).map(|out| out.len());
                assert_eq!(decoded.ok(), (more == 0).then_some(zeros.len()), "{coding}");
            }
        }
    }
}
