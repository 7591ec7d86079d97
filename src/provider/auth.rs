//! Proof of who pays that takes more than a header with a key: AWS signatures, version 4.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>, made by AWS's own crate.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use std::time::SystemTime;

/// Keys of an AWS account. Shows nothing of itself.
#[derive(Clone)]
pub struct AwsKeys {
    identity: aws_smithy_runtime_api::client::identity::Identity,
}

impl AwsKeys {
    pub fn new(access_key_id: &str, secret: &str, session_token: Option<&str>) -> Self {
        let token = session_token.map(str::to_owned);
        Self { identity: Credentials::new(access_key_id, secret, token, None, "tollgate").into() }
    }

    pub(crate) fn identity(&self) -> &aws_smithy_runtime_api::client::identity::Identity {
        &self.identity
    }
}

impl From<Credentials> for AwsKeys {
    fn from(credentials: Credentials) -> Self {
        Self { identity: credentials.into() }
    }
}

impl std::fmt::Debug for AwsKeys {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("AwsKeys(…)")
    }
}

/// A request to be signed.
#[derive(Clone, Copy)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    /// With scheme, host, path and query.
    pub uri: &'a str,
    /// `host` is taken from the URI.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The headers that sign a request to a service in a region; `None` if the request cannot be signed.
pub fn sign_v4(request: Unsigned<'_>, keys: &AwsKeys, region: &str, service: &str, now: SystemTime) -> Option<Vec<(String, String)>> {
    let params = v4::SigningParams::builder()
        .identity(&keys.identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let body = SignableBody::Bytes(request.body);
    let signable = SignableRequest::new(request.method, request.uri, request.headers.iter().copied(), body).ok()?;
    let (instructions, _) = sign(signable, &params.into()).ok()?.into_parts();
    Some(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What botocore 1.44.8 (`botocore.auth.SigV4Auth`) signs for the same request at the same moment.
    #[test]
    fn signs_as_botocore_does() {
        let keys = AwsKeys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Some("session/token+x="));
        let request = Unsigned {
            method: "POST",
            uri: "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse",
            headers: &[("content-type", "application/json")],
            body: br#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let headers = sign_v4(request, &keys, "us-east-1", "bedrock", now).unwrap();
        let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(header("x-amz-date"), Some("20251124T160000Z"));
        assert_eq!(header("x-amz-security-token"), Some("session/token+x="));
        assert_eq!(header("authorization"), Some(BOTOCORE));
        assert!(!format!("{keys:?}").contains("wJalr"));
    }

    /// AWS's published vectors: <https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite/v4>.
    #[test]
    fn signs_as_the_published_vectors_do() {
        let keys = AwsKeys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None);
        // 2015-08-30T12:36:00Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for (method, uri, headers, body, want) in [
            ("GET", "https://example.amazonaws.com/", &[][..], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "https://example.amazonaws.com/", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                "https://example.amazonaws.com/?Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "POST",
                "https://example.amazonaws.com/",
                &form[..],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let headers = sign_v4(Unsigned { method, uri, headers, body: body.as_bytes() }, &keys, "us-east-1", "service", now).unwrap();
            let (_, authorization) = headers.iter().find(|(name, _)| name == "authorization").unwrap();
            assert!(authorization.ends_with(&format!("Signature={want}")), "{method} {uri}: {authorization}");
        }
    }

    const BOTOCORE: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251124/us-east-1/bedrock/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
        Signature=e3647a29bd4627eddaafded27ccf5033456de79180eeffad56241547d532dbc3";
}
