//! Pages of listed web sites: their browsers ask whether they may, and read answers that say so.
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// How long a browser may remember that it may, in seconds: the most that any of them takes.
const MAX_AGE_S: u32 = 7200;

/// Where the page is from that asks, if that is listed.
pub fn origin<'h>(headers: &'h HeaderMap, listed: &[String]) -> Option<&'h HeaderValue> {
    headers.get(ORIGIN).filter(|origin| listed.iter().any(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes())))
}

/// True for the question whether a page may ask; it comes without a key.
pub fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to it.
///
/// # Errors
/// If Pingora takes no more fields.
pub fn preflight(request: &RequestHeader) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(204, Some(8))?;
    head.insert_header(ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE")?;
    // A `*` would not stand for `Authorization`.
    if let Some(asked) = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        head.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone())?;
    }
    head.insert_header(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S)?;
    Ok(head)
}

/// Who may read an answer: the page that asked, if that is listed.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    page: Option<HeaderValue>,
    /// Some pages are listed, so that an answer is not the same for all.
    varies: bool,
}

impl Readers {
    /// Of the answer to a request with this head.
    pub fn of(headers: &HeaderMap, listed: &[String]) -> Self {
        Self { page: origin(headers, listed).cloned(), varies: !listed.is_empty() }
    }

    /// True for a listed page.
    pub fn are_pages(&self) -> bool {
        self.page.is_some()
    }

    /// Says so in the head of an answer.
    ///
    /// # Errors
    /// If Pingora takes no more fields.
    pub fn tell(&self, response: &mut ResponseHeader) -> Result<()> {
        if self.varies {
            response.append_header(VARY, "Origin")?;
        }
        let Some(page) = &self.page else { return Ok(()) };
        response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, page.clone())?;
        response.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, "*")
    }
}
