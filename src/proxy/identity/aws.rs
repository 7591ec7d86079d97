//! AWS: variables, shared files with roles, web identity, container and instance, as AWS's own crate looks for them.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>

use super::{Held, Proof, told};
use crate::provider::auth::AwsKeys;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

pub(super) struct Chain(SharedCredentialsProvider);

impl Chain {
    pub(super) async fn open(profile: Option<&str>, region: &str) -> Result<Self, String> {
        let client = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let region = Region::new(region.to_owned());
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region.clone()).http_client(client.clone());
        if let Some(profile) = profile {
            let provider = aws_config::profile::ProfileFileCredentialsProvider::builder().profile_name(profile);
            let config = aws_config::provider_config::ProviderConfig::without_region().with_region(Some(region));
            loader = loader.credentials_provider(provider.configure(&config.with_http_client(client)).build());
        }
        let found = loader.load().await.credentials_provider();
        found.map(Self).ok_or_else(|| "AWS's chain of credentials is empty".to_owned())
    }

    pub(super) async fn fetch(&self) -> Result<Held, String> {
        let credentials = self.0.provide_credentials().await.map_err(|error| told(&error))?;
        let until = credentials.expiry();
        Ok(Held::new(Proof::Aws(AwsKeys::from(credentials)), until))
    }
}
