//! Callers that sign as AWS clients do. Each key has pairs of access key id and secret, the latter an HMAC of the former
//! under the gateway's own signing secret, so that nothing more is stored. A signature is checked by signing the request
//! again with AWS's own crate: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>

use super::{Caller, Keys};
use crate::config::Secret;
use crate::error::Error;
use crate::provider::auth::AwsKeys;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::time::{Duration, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// What an `Authorization` header with a signature begins with.
pub const SCHEME: &str = "AWS4-HMAC-SHA256 ";
/// How far a client's clock may be off, in seconds.
pub const CLOCK_SKEW_S_MAX: i64 = 300;
/// The only service that is signed for.
const SERVICE: &str = "bedrock";
const ACCESS_KEY_PREFIX: &str = "TGAK";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const ALGORITHM_DATE: &str = "%Y%m%dT%H%M%SZ";
/// Of headers that a signature may cover.
const SIGNED_HEADERS_MAX: usize = 64;

/// The access key id of a key's secret: its id and the secret's serial number.
pub fn access_key_id(id: &str, serial: u16) -> String {
    format!("{ACCESS_KEY_PREFIX}{}{serial:04X}", id.to_ascii_uppercase())
}

/// The secret that belongs to an access key id.
pub fn secret_of(signing: &Secret, access_key_id: &str) -> String {
    // An HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(signing.expose().as_bytes()) else { return String::new() };
    mac.update(access_key_id.as_bytes());
    STANDARD_NO_PAD.encode(mac.finalize().into_bytes())
}

/// The access key id of the gateway's that a signature names; a client's own at AWS is none.
pub(super) fn signed_by(authorization: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authorization).ok()?.strip_prefix(SCHEME)?;
    let credential = text.split(',').find_map(|part| part.trim().strip_prefix("Credential="))?;
    credential.split('/').next().filter(|id| id.starts_with(ACCESS_KEY_PREFIX))
}

/// The id and serial number in an access key id.
pub(super) fn id_of(access_key_id: &str) -> Option<(String, u16)> {
    let rest = access_key_id.strip_prefix(ACCESS_KEY_PREFIX)?;
    let (id, serial) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
    Some((id.to_ascii_lowercase(), u16::from_str_radix(serial, 16).ok()?))
}

/// What a signed request claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub access_key_id: String,
    region: String,
    /// Seconds since 1970.
    at: i64,
    /// Names of the headers it covers.
    headers: Vec<String>,
    signature: String,
}

impl Signed {
    /// Reads the claim and checks what can be checked without the body.
    ///
    /// # Errors
    /// [`Error::BadSignature`].
    pub(super) fn read(authorization: &[u8], headers: &HeaderMap, now: i64) -> Result<Self, Error> {
        let bad = |why| Error::BadSignature { why };
        let text = std::str::from_utf8(authorization).ok().and_then(|text| text.strip_prefix(SCHEME)).ok_or(bad("it cannot be read"))?;
        let field = |name: &str| text.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let (Some(credential), Some(signed), Some(signature)) = (field("Credential"), field("SignedHeaders"), field("Signature")) else {
            return Err(bad("it needs Credential, SignedHeaders and Signature"));
        };
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope.as_slice() else {
            return Err(bad("its credential scope cannot be read"));
        };
        let stated = headers.get("x-amz-date").and_then(|value| value.to_str().ok()).ok_or(bad("`x-amz-date` is missing"))?;
        let at = jiff::civil::DateTime::strptime(ALGORITHM_DATE, stated).ok();
        let at = at.and_then(|at| jiff::tz::Offset::UTC.to_timestamp(at).ok()).ok_or(bad("`x-amz-date` cannot be read"))?.as_second();
        if (now - at).abs() > CLOCK_SKEW_S_MAX {
            return Err(bad("it was made too long ago, or the clocks differ by more than five minutes"));
        }
        if !stated.starts_with(date) || date.len() != 8 || *service != SERVICE {
            return Err(bad("it was made for another day or service"));
        }
        let names: Vec<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
        if names.len() > SIGNED_HEADERS_MAX || !["host", "x-amz-date"].iter().all(|name| names.iter().any(|other| other == name)) {
            return Err(bad("it must cover `host` and `x-amz-date`"));
        }
        let (access_key_id, region) = ((*access_key_id).to_owned(), (*region).to_owned());
        Ok(Self { access_key_id, region, at, headers: names, signature: signature.to_owned() })
    }
}

/// A request as its caller signed it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The host as the caller wrote it.
    pub host: &'a str,
    pub path_and_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Keys {
    /// Checks a caller's signature, if it made one, against the whole request.
    ///
    /// # Errors
    /// [`Error::BadSignature`].
    pub fn verify(&self, caller: &Caller, request: Request<'_>) -> Result<(), Error> {
        let Some(signed) = &caller.signed else { return Ok(()) };
        let bad = |why| Error::BadSignature { why };
        if !self.regions.contains(&signed.region) {
            return Err(bad("it was made for a region that is not configured here"));
        }
        let payload = self.payload(signed, request)?;
        let (_, secret) = self.by_access_key(&signed.access_key_id, signed.at)?;
        let made = resign(signed, request, payload, &secret).ok_or(bad("it cannot be checked"))?;
        if bool::from(made.as_bytes().ct_eq(signed.signature.as_bytes())) {
            return Ok(());
        }
        Err(bad("it does not match the request"))
    }

    /// How the body takes part, by the caller's own `x-amz-content-sha256`.
    fn payload<'a>(&self, signed: &Signed, request: Request<'a>) -> Result<(SignableBody<'a>, PayloadChecksumKind), Error> {
        let stated = request.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
        let covered = signed.headers.iter().any(|name| name == "x-amz-content-sha256");
        let kind = if covered { PayloadChecksumKind::XAmzSha256 } else { PayloadChecksumKind::NoHeader };
        match stated {
            Some(UNSIGNED) if self.unsigned_payload => Ok((SignableBody::UnsignedPayload, kind)),
            Some(UNSIGNED) => Err(Error::BadSignature { why: "it must cover the body" }),
            Some(hash) => {
                let own = hex::encode(Sha256::digest(request.body));
                if !hash.eq_ignore_ascii_case(&own) {
                    return Err(Error::BadSignature { why: "`x-amz-content-sha256` is not the body's" });
                }
                Ok((SignableBody::Precomputed(own), kind))
            }
            None => Ok((SignableBody::Bytes(request.body), kind)),
        }
    }
}

/// The signature that the holder of the secret would have made.
fn resign(signed: &Signed, request: Request<'_>, payload: (SignableBody<'_>, PayloadChecksumKind), secret: &str) -> Option<String> {
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = payload.1;
    // The caller said what it covers; nothing of that is left out.
    settings.excluded_headers = None;
    let keys = AwsKeys::new(&signed.access_key_id, secret, None);
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(signed.at).ok()?);
    let params = v4::SigningParams::builder()
        .identity(keys.identity())
        .region(&signed.region)
        .name(SERVICE)
        .time(time)
        .settings(settings)
        .build()
        .ok()?;
    // These the crate writes itself.
    let own = |name: &str| matches!(name, "host" | "x-amz-date" | "x-amz-content-sha256");
    let mut headers = vec![("host", request.host)];
    for name in signed.headers.iter().filter(|name| !own(name)) {
        for value in request.headers.get_all(name.as_str()) {
            headers.push((name, value.to_str().ok()?));
        }
    }
    let uri = format!("http://{}{}", request.host, request.path_and_query);
    let signable = SignableRequest::new(request.method, uri, headers.into_iter(), payload.0).ok()?;
    Some(sign(signable, &params.into()).ok()?.signature().to_owned())
}
