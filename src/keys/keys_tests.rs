use super::*;
use crate::provider::auth::{AwsKeys, Unsigned, sign_v4};
use jiff::{Timestamp, ToSpan};
use signature::{Request, access_key_id, secret_of};
use std::time::{Duration, UNIX_EPOCH};

const NOW: i64 = 1_764_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn keys(change: impl FnOnce(&mut Record)) -> (Keys, String) {
    let mut made = make("ci", now()).unwrap();
    change(&mut made.record);
    (Keys::new([made.record]), made.text)
}

#[test]
fn a_key_is_taken_wherever_an_sdk_puts_it() {
    let (keys, text) = keys(|_| {});
    let bearer = format!("Bearer {text}");
    for (name, value) in
        [("authorization", &bearer), ("x-api-key", &text), ("api-key", &text), ("x-goog-api-key", &text), ("x-gateway-key", &text)]
    {
        assert_eq!(keys.authenticate(&headers(&[(name, value)]), NOW).unwrap().key.name, "ci", "{name}");
    }
    assert!(keys.authenticate(&headers(&[("authorization", &bearer), ("x-api-key", &text)]), NOW).is_ok());
    // Where one is for the gateway, the others are for the provider.
    assert!(keys.authenticate(&headers(&[("authorization", "Bearer sk-own"), ("x-gateway-key", &text)]), NOW).is_ok());
}

#[test]
fn signature_beside_a_key_must_be_by_the_same_key() {
    let [one, other] = [make("one", now()).unwrap(), make("other", now()).unwrap()];
    let id = |made: &record::Made, serial| access_key_id(made.text.split('_').nth(1).unwrap(), serial);
    let signatures = [id(&one, 0), id(&other, 0), id(&one, 7), "AKIDEXAMPLE".to_owned()];
    let text = one.text.clone();
    let mut keys = Keys::new([one.record, other.record]);
    keys.signing = Some(Secret::new("0123456789abcdef0123456789abcdef"));
    let allowed = signatures.map(|id| {
        let signed =
            format!("AWS4-HMAC-SHA256 Credential={id}/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=0");
        keys.authenticate(&headers(&[("authorization", &signed), ("x-gateway-key", &text)]), NOW).is_ok()
    });
    assert_eq!(allowed, [true, false, false, true]);
}

#[test]
fn nothing_else_is_taken() {
    let (keys, text) = keys(|_| {});
    let wrong = text.chars().rev().collect::<String>();
    let (cut, long) = (&text[..text.len() - 1], format!("{text}A"));
    for value in ["", "tg_", "tg__", "sk-live", &wrong, cut, &long, &text.to_uppercase(), &format!("Bearer {text}")] {
        assert_eq!(keys.authenticate(&headers(&[("x-api-key", value), ("api-key", &text)]), NOW).is_ok(), value.starts_with("Bearer"));
        assert_eq!(keys.authenticate(&headers(&[("x-gateway-key", value)]), NOW).unwrap_err(), Error::InvalidKey, "{value}");
    }
    assert_eq!(keys.authenticate(&HeaderMap::new(), NOW).unwrap_err(), Error::MissingKey);
}

#[test]
fn expired_and_revoked_keys_are_refused() {
    let (keys_of, text) = keys(|record| record.expires = Some(now()));
    assert!(keys_of.authenticate(&headers(&[("api-key", &text)]), NOW - 1).is_ok());
    assert_eq!(keys_of.authenticate(&headers(&[("api-key", &text)]), NOW).unwrap_err(), Error::InvalidKey);
    let (keys_of, text) = keys(|record| record.revoked = Some(now()));
    assert_eq!(keys_of.authenticate(&headers(&[("api-key", &text)]), NOW).unwrap_err(), Error::InvalidKey);
}

#[test]
fn an_old_secret_lasts_as_long_as_the_rotation_says() {
    let mut made = make("ci", now()).unwrap();
    let second = rotate(&mut made.record, now(), Some(now() + 1.hour())).unwrap();
    let third = rotate(&mut made.record, now(), Some(now() + 2.hours())).unwrap();
    assert_eq!(made.record.secrets.iter().map(|secret| secret.serial).collect::<Vec<_>>(), [0, 1, 2]);
    let keys = Keys::new([made.record.clone()]);
    let valid = |text: &str, at| keys.authenticate(&headers(&[("api-key", text)]), at).is_ok();
    for (text, until) in [(&made.text, Some(3600)), (&second, Some(7200)), (&third, None)] {
        assert!(valid(text, NOW + until.unwrap_or(1 << 30) - 1));
        assert_eq!(valid(text, NOW + until.unwrap_or(1 << 30)), until.is_none());
    }
    let last = rotate(&mut made.record, now(), None).unwrap();
    let keys = Keys::new([made.record]);
    assert!(keys.authenticate(&headers(&[("api-key", &third)]), NOW).is_err());
    assert!(keys.authenticate(&headers(&[("api-key", &last)]), NOW).is_ok());
}

#[test]
fn a_key_may_be_narrowed() {
    let (keys, text) =
        keys(|record| (record.models, record.providers) = (vec!["gpt-*".to_owned(), "fast".to_owned()], vec!["openai".to_owned()]));
    let key = keys.authenticate(&headers(&[("api-key", &text)]), NOW).unwrap().key;
    assert_eq!(key.allows("openai", "openai/gpt-5", "gpt-5"), Ok(()));
    assert_eq!(key.allows("openai", "fast", "o4-mini"), Ok(()));
    assert_eq!(key.allows("openai", "o4-mini", "o4-mini"), Err(Error::ForbiddenModel { model: "o4-mini".to_owned() }));
    assert_eq!(key.allows("azure", "gpt-5", "gpt-5"), Err(Error::ForbiddenProvider { provider: "azure".to_owned() }));
}

struct Client {
    keys: Keys,
    access_key_id: String,
    secret: String,
}

fn client() -> Client {
    let (mut keys, text) = keys(|_| {});
    let signing = Secret::new("0123456789abcdef0123456789abcdef");
    let access_key_id = access_key_id(text.split('_').nth(1).unwrap(), 0);
    let secret = secret_of(&signing, &access_key_id);
    keys.signing = Some(signing);
    keys.regions = vec!["eu-west-1".to_owned()];
    Client { keys, access_key_id, secret }
}

const PATH: &str = "/model/anthropic.claude-haiku-4-5-20251001-v1%3A0/converse";
const BODY: &[u8] = br#"{"messages":[]}"#;

impl Client {
    fn sign(&self, region: &str, service: &str, at: i64) -> HeaderMap {
        let uri = format!("http://127.0.0.1:8080{PATH}");
        let request = Unsigned { method: "POST", uri: &uri, headers: &[("content-type", "application/json")], body: BODY };
        let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap());
        let signed = sign_v4(request, &AwsKeys::new(&self.access_key_id, &self.secret, None), region, service, at).unwrap();
        let mut headers = headers(&[("content-type", "application/json")]);
        for (name, value) in signed {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn check(&self, headers: &HeaderMap, path_and_query: &str, body: &[u8]) -> Result<(), Error> {
        let caller = self.keys.authenticate(headers, NOW)?;
        self.keys.verify(&caller, Request { method: "POST", host: "127.0.0.1:8080", path_and_query, headers, body })
    }
}

#[test]
fn a_signature_holds_for_its_request_alone() {
    let client = client();
    let signed = client.sign("eu-west-1", "bedrock", NOW);
    assert_eq!(client.check(&signed, PATH, BODY), Ok(()));
    let why = |result: Result<(), Error>| match result {
        Err(Error::BadSignature { why }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(client.check(&signed, PATH, b"{}")), "it does not match the request");
    assert_eq!(why(client.check(&signed, "/model/other/converse", BODY)), "it does not match the request");
    assert_eq!(why(client.check(&signed, &format!("{PATH}?a=b"), BODY)), "it does not match the request");
    let mut changed = signed.clone();
    changed.insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(why(client.check(&changed, PATH, BODY)), "it does not match the request");
    for age in [-300, 300] {
        assert_eq!(client.check(&client.sign("eu-west-1", "bedrock", NOW + age), PATH, BODY), Ok(()));
        assert!(why(client.check(&client.sign("eu-west-1", "bedrock", NOW + age + age.signum()), PATH, BODY)).contains("too long ago"));
    }
    assert!(why(client.check(&client.sign("us-east-1", "bedrock", NOW), PATH, BODY)).contains("region"));
    assert!(why(client.check(&client.sign("eu-west-1", "s3", NOW), PATH, BODY)).contains("service"));
}

#[test]
fn a_body_is_left_out_of_a_signature_only_where_that_is_configured() {
    let mut client = client();
    let mut signed = client.sign("eu-west-1", "bedrock", NOW);
    signed.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
    assert_eq!(client.check(&signed, PATH, BODY), Err(Error::BadSignature { why: "it must cover the body" }));
    // The signature above was made over the body: it does not hold without.
    client.keys.unsigned_payload = true;
    assert_eq!(client.check(&signed, PATH, BODY), Err(Error::BadSignature { why: "it does not match the request" }));
    signed.insert("x-amz-content-sha256", "00".parse().unwrap());
    assert_eq!(client.check(&signed, PATH, BODY), Err(Error::BadSignature { why: "`x-amz-content-sha256` is not the body's" }));
}

#[test]
fn who_has_no_pair_cannot_sign() {
    let mut client = client();
    let signed = client.sign("eu-west-1", "bedrock", NOW);
    client.secret = "guessed".to_owned();
    assert!(client.check(&client.sign("eu-west-1", "bedrock", NOW), PATH, BODY).is_err());
    client.access_key_id = access_key_id("0000000000000000", 0);
    assert_eq!(client.check(&client.sign("eu-west-1", "bedrock", NOW), PATH, BODY), Err(Error::InvalidKey));
    client.keys.signing = None;
    assert_eq!(client.check(&signed, PATH, BODY), Err(Error::InvalidKey));
}
