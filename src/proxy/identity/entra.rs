//! Microsoft Entra: applications with a secret, workload and managed identities, by Azure's own crate.
//! <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/how-to/managed-identity>

use super::{Held, told};
use crate::config::Identity;
use azure_core::credentials::{Secret, TokenCredential};
use azure_identity::{
    ClientSecretCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use std::sync::Arc;
use std::time::SystemTime;

pub(super) struct Tokens {
    credential: Arc<dyn TokenCredential>,
    scope: String,
}

impl Tokens {
    pub(super) fn open(identity: &Identity) -> Result<Self, String> {
        let (credential, scope) = match identity {
            Identity::EntraSecret { tenant, client, secret, scope } => {
                let secret = Secret::new(secret.expose().to_owned());
                (ClientSecretCredential::new(tenant, client.clone(), secret, None).map(|made| made as Arc<dyn TokenCredential>), scope)
            }
            Identity::EntraWorkload { tenant, client, token_file, scope } => {
                let options = WorkloadIdentityCredentialOptions {
                    client_id: client.clone(),
                    tenant_id: tenant.clone(),
                    token_file_path: token_file.clone(),
                    ..WorkloadIdentityCredentialOptions::default()
                };
                (WorkloadIdentityCredential::new(Some(options)).map(|made| made as Arc<dyn TokenCredential>), scope)
            }
            Identity::EntraManaged { client, scope } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client.clone().map(UserAssignedId::ClientId),
                    ..ManagedIdentityCredentialOptions::default()
                };
                (ManagedIdentityCredential::new(Some(options)).map(|made| made as Arc<dyn TokenCredential>), scope)
            }
            _ => return Err("not an identity of Entra's".to_owned()),
        };
        Ok(Self { credential: credential.map_err(|error| told(&error))?, scope: scope.clone() })
    }

    pub(super) async fn fetch(&self) -> Result<Held, String> {
        let token = self.credential.get_token(&[&self.scope], None).await.map_err(|error| told(&error))?;
        Held::bearer(token.token.secret(), Some(SystemTime::from(token.expires_on)))
    }
}
