//! Google: service accounts and other credential files, application default credentials, the metadata server, by Google's
//! own crate. <https://cloud.google.com/docs/authentication/application-default-credentials>

use super::{Held, LOOK, told};
use crate::config::Identity;
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder, external_account, impersonated, mds, service_account, user_account};
use serde_json::Value;
use std::time::SystemTime;

/// <https://cloud.google.com/vertex-ai/docs/authentication>
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Keeps a token in store and replaces it itself, so it is asked often.
pub(super) struct Tokens(AccessTokenCredentials);

impl Tokens {
    pub(super) fn open(identity: &Identity) -> Result<Self, String> {
        let built = match identity {
            Identity::GoogleFile(text) => {
                let file: Value = serde_json::from_str(text.expose()).map_err(|_| "the credential file is no JSON".to_owned())?;
                match file.get("type").and_then(Value::as_str) {
                    Some("authorized_user") => user_account::Builder::new(file).build_access_token_credentials(),
                    Some("external_account") => external_account::Builder::new(file).with_scopes([SCOPE]).build_access_token_credentials(),
                    Some("impersonated_service_account") => {
                        impersonated::Builder::new(file).with_scopes([SCOPE]).build_access_token_credentials()
                    }
                    _ => service_account::Builder::new(file)
                        .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
                        .build_access_token_credentials(),
                }
            }
            Identity::GoogleMetadata => mds::Builder::default().with_scopes([SCOPE]).build_access_token_credentials(),
            _ => Builder::default().with_scopes([SCOPE]).build_access_token_credentials(),
        };
        built.map(Self).map_err(|error| told(&error))
    }

    pub(super) async fn fetch(&self) -> Result<Held, String> {
        let token = self.0.access_token().await.map_err(|error| told(&error))?;
        // When it ends is not said, but what is handed out is good; what is not handed out again has ended.
        let held = Held::bearer(&token.token, Some(SystemTime::now() + 3 * LOOK))?;
        Ok(Held { look: Some(LOOK), ..held })
    }
}
