//! What the heads of a request and its answer say to the exchange.

use crate::dialect::{Dialect, Endpoint, INVOKE_HEADERS};
use crate::error::Error;
use crate::json::Want::{self, Fields, Take};
use crate::meter::{Fault, Framing, Meter};
use crate::rewrite::spans::members;
use crate::route::Target;
use crate::stream::event_stream::EventStream;
use crate::stream::sse::Sniffer;
use crate::usage::{Field, Reported};
use http::{HeaderMap, HeaderName, header};

/// What the upstream's query says: the caller's, and what the route demands.
pub(super) fn query(dialect: Dialect, callers: Option<&str>, demanded: Option<&(&'static str, String)>) -> Option<String> {
    let mut query = callers.map(|query| without_keys(dialect, query)).unwrap_or_default();
    if let Some((name, value)) = demanded {
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        query = format!("{query}{}{name}={value}", if query.is_empty() { "" } else { "&" });
    }
    Some(query).filter(|query| !query.is_empty())
}

/// A query without the parameters in which callers carry keys: they are the gateway's business, or nobody's. Google
/// leaves out of an answer what `fields` does not name, and usage must not be left out.
pub(super) fn without_keys(dialect: Dialect, query: &str) -> String {
    let stays = |pair: &&str| {
        let name =
            percent_encoding::percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy().to_ascii_lowercase();
        let is_key = matches!(name.as_str(), "key" | "api-key" | "api_key" | "access_token" | "oauth_token" | "subscription-key");
        let hides_usage = dialect == Dialect::Generate && matches!(name.as_str(), "fields" | "$fields");
        !is_key && !hides_usage && !name.starts_with("x-amz-")
    };
    query.split('&').filter(stays).collect::<Vec<_>>().join("&")
}

/// How most documents are announced.
const DOCUMENT: &str = "application/json";

fn kind(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// What the headers announce. The first byte decides all the same: labels are sometimes wrong.
pub(super) fn framing(dialect: Dialect, headers: &HeaderMap) -> Framing {
    let kind = kind(headers);
    if kind == DOCUMENT {
        return Framing::Undecided(Sniffer::announced(false));
    }
    if kind.contains("amazon.eventstream") {
        Framing::EventStream(EventStream::default())
    } else {
        let announced = kind.contains("event-stream");
        // Sound and subtitles come from the same places as documents.
        if dialect == Dialect::Audio && !announced && !is_document(headers) {
            return Framing::Opaque;
        }
        Framing::Undecided(Sniffer::announced(announced))
    }
}

/// True if the headers announce one JSON document.
pub(super) fn is_document(headers: &HeaderMap) -> bool {
    let kind = kind(headers);
    let essence = || kind.split(';').next().unwrap_or_default().trim();
    kind == DOCUMENT || essence().eq_ignore_ascii_case(DOCUMENT) || essence().ends_with("+json")
}

/// True if a body is compressed.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| !coding.trim_ascii().is_empty() && !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Refuses parameters of Google's that change the form of a response so that its usage could not be read:
/// <https://cloud.google.com/apis/docs/system-parameters>.
///
/// # Errors
/// [`Error::BadParameter`].
pub(super) fn check_query(dialect: Dialect, query: Option<&str>) -> Result<(), Error> {
    if dialect != Dialect::Generate {
        return Ok(());
    }
    let mut forms = 0;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().replace('+', " ");
        let (name, value) = (decoded(name).trim().to_ascii_lowercase(), decoded(value));
        match name.trim_start_matches('$') {
            "alt" => {
                forms += 1;
                if forms > 1 || !matches!(value.as_str(), "json" | "sse") {
                    return Err(Error::BadParameter { name: "alt", want: "`json` or `sse`, and there once" });
                }
            }
            "callback" => return Err(Error::BadParameter { name: "callback", want: "absent" }),
            "prettyprint" | "key" | "fields" | "quotauser" | ".xgafv" | "userproject" => {}
            // `$httpMethod`, `$httpHeaders`, `$req` and others state another request than the one that is read.
            _ if name.starts_with('$') => return Err(Error::BadParameter { name: "$…", want: "absent" }),
            "httpmethod" | ".httpmethod" => return Err(Error::BadParameter { name: "httpMethod", want: "absent" }),
            _ => {}
        }
    }
    Ok(())
}

/// The meter for a response with these headers. `implied` is what the request says of its usage.
pub fn response_meter(dialect: Dialect, headers: &HeaderMap, implied: &Reported) -> Meter {
    let encoded = is_encoded(headers);
    let mut meter = Meter::new(dialect.grammar(), if encoded { Framing::Whole } else { framing(dialect, headers) });
    if encoded {
        meter.fault(Fault::Encoded);
    }
    meter.stated(implied);
    meter.stated(&stated(dialect, headers));
    if let Some(tier) = stated_tier(dialect, headers) {
        meter.stated_tier(tier);
    }
    if let Some(kind) = stated_error(headers) {
        meter.stated_error(kind);
    }
    meter
}

/// Usage in the headers of an answer.
pub(super) fn stated(dialect: Dialect, headers: &HeaderMap) -> Reported {
    // <https://docs.fireworks.ai/guides/prompt-caching>
    static CACHED: [(HeaderName, Field); 1] = [(HeaderName::from_static("fireworks-cached-prompt-tokens"), Field::CacheRead)];
    let names: &[_] = match dialect {
        Dialect::Invoke => &INVOKE_HEADERS,
        Dialect::Chat | Dialect::Completions | Dialect::Responses => &CACHED,
        _ => return Reported::default(),
    };
    let mut stated = Reported::default();
    for (name, field) in names {
        if let Some(count) = headers.get(name).and_then(|count| count.to_str().ok()?.parse().ok()) {
            stated.set(*field, count);
        }
    }
    stated
}

/// The tier that served, or another way of serving that affects the price, in the headers of a response:
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html#API_runtime_InvokeModel_ResponseSyntax>.
pub(super) fn stated_tier(dialect: Dialect, headers: &HeaderMap) -> Option<&str> {
    const TIER_BYTES_MAX: usize = 64;
    static TIER: HeaderName = HeaderName::from_static("x-amzn-bedrock-service-tier");
    static LATENCY: HeaderName = HeaderName::from_static("x-amzn-bedrock-performanceconfig-latency");
    if dialect != Dialect::Invoke {
        return None;
    }
    let value = |name: &HeaderName| headers.get(name)?.to_str().ok().filter(|value| !value.is_empty() && value.len() <= TIER_BYTES_MAX);
    value(&LATENCY).filter(|latency| *latency != "standard").or_else(|| value(&TIER))
}

/// What a request says will be used: speech is paid for by the character at some models, and no answer says how many.
pub(super) fn implied(target: &Target, body: &[u8]) -> Reported {
    static ROOT: Want<usize> = Fields(&[("input", Take(0))]);
    let mut implied = Reported::default();
    if *target == Target::Endpoint(Endpoint::Speech) {
        let [input] = members(body, 0..body.len(), &ROOT);
        if let Some(spoken) = input.and_then(|span| body.get(span)).and_then(|raw| raw.strip_prefix(b"\"")?.strip_suffix(b"\"")) {
            implied.set(Field::Characters, characters(spoken));
        }
    }
    implied
}

/// Unicode characters of a JSON string between its quotes. What is no character counts as one: some read it as such.
fn characters(mut raw: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&byte, rest)) = raw.split_first() {
        let unit =
            |raw: &[u8]| std::str::from_utf8(raw.get(..6)?.strip_prefix(b"\\u")?).ok().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let bytes = match (byte, unit(raw)) {
            (_, Some(0xd800..=0xdbff)) if matches!(raw.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(_)) => 6,
            (b'\\', None) => 2,
            _ => 1 + rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count(),
        };
        raw = raw.get(bytes..).unwrap_or_default();
        count += 1;
    }
    count
}

/// The kind of error in the headers of an answer; AWS appends where it is described.
pub(super) fn stated_error(headers: &HeaderMap) -> Option<&str> {
    const KIND_BYTES_MAX: usize = 128;
    static KIND: HeaderName = HeaderName::from_static("x-amzn-errortype");
    let kind = headers.get(&KIND)?.to_str().ok()?.split([':', ',']).next()?;
    Some(kind).filter(|kind| !kind.is_empty() && kind.len() <= KIND_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_hide_usage_are_refused() {
        for query in ["alt=sse", "alt=json&key=k", "%61lt=sse&prettyPrint=false", "$alt=json", "", "x=alt"] {
            assert_eq!(check_query(Dialect::Generate, Some(query)), Ok(()), "{query}");
        }
        for query in [
            "alt=proto",
            "$alt=proto",
            "%24alt=proto",
            "a%6ct=media",
            "alt=sse&alt=proto",
            "alt=sse&%24alt=json",
            "ALT=proto",
            "alt",
            "callback=f",
            "$callback=f",
            "alt=%70roto",
            "$httpHeaders=X-Goog-FieldMask%3Acandidates",
            "%24httpheaders=x",
            "$req=x",
        ] {
            assert!(matches!(check_query(Dialect::Generate, Some(query)), Err(Error::BadParameter { .. })), "{query}");
        }
        assert_eq!(check_query(Dialect::Chat, Some("alt=proto")), Ok(()));
    }

    #[test]
    fn counts_characters_as_they_are_spoken() {
        for (raw, want) in
            [("", 0), ("abc", 3), ("Zwölf 🦊…", 8), (r#"\n\"\\"#, 3), (r"\u00fc\ud83e\udd8a", 2), (r"a\ud800b", 3), (r"\udd8a\ud83e", 2)]
        {
            assert_eq!(characters(raw.as_bytes()), want, "{raw}");
        }
    }
}
