//! Takes off what a provider compressed though it was asked not to.

use super::ctx::Ctx;
use crate::stream::decode::Decoder;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::{ErrorType, OrErr, Result};

/// An answer that is not what its head says, or expands beyond measure.
const UNDECODABLE: ErrorType = ErrorType::new("UndecodableAnswer");

impl Ctx {
    /// The head of an answer is here: from now on it says what follows.
    pub(super) fn undo_coding(&mut self, method: &Method, response: &mut ResponseHeader) -> Result<()> {
        self.decoder = None;
        let bodiless = *method == Method::HEAD || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut codings = response.headers.get_all(header::CONTENT_ENCODING).iter();
        let (Some(coding), None) = (codings.next().filter(|_| !bodiless), codings.next()) else { return Ok(()) };
        let Some(decoder) = Decoder::of(coding.as_bytes()) else { return Ok(()) };
        self.decoder = Some(Box::new(decoder));
        for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
            response.remove_header(&name);
        }
        if let Some(etag) = response.headers.get(header::ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/")) {
            // Not the same bytes any more.
            let weak = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat());
            response.insert_header(header::ETAG, weak.or_err(ErrorType::InternalError, "an ETag")?)?;
        }
        response.insert_header(header::TRANSFER_ENCODING, "chunked")
    }

    /// Takes the coding off the next piece of the body.
    pub(super) fn decode(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let piece = body.take().unwrap_or_default();
        let decoded = decoder.decode(&piece, end).or_err(UNDECODABLE, "an answer cannot be decoded").map_err(pingora::Error::into_up)?;
        *body = (!decoded.is_empty()).then_some(decoded);
        Ok(())
    }
}
