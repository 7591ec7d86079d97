//! Reads who the gateway is to a cloud that hands out credentials for a while, instead of one key for good.

use super::file::Reader;
use super::{Secret, Stamp, Upstream};
use crate::provider::{Cloud, Provider};
use crate::yaml::{Map, Node};
use std::path::PathBuf;

/// What Entra tokens are asked for, unless configuration names another audience (sovereign clouds have their own):
/// <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/how-to/managed-identity>.
const ENTRA_SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// Variables that say that AWS's chain finds something beyond keys:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.
const AWS_CHAIN: &[&str] =
    &["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// Types of Google's credential files that can be read:
/// <https://cloud.google.com/docs/authentication/application-default-credentials>.
pub const GOOGLE_FILES: &[&str] = &["service_account", "authorized_user", "external_account", "impersonated_service_account"];

/// Who the gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// AWS's usual places one after another, or a profile of its shared files.
    Aws { profile: Option<String>, region: String },
    /// Google's application default credentials.
    GoogleDefault,
    /// The content of a credential file.
    GoogleFile(Secret),
    /// Whoever the machine runs as, by its metadata server.
    GoogleMetadata,
    /// An application of Microsoft Entra with a secret.
    EntraSecret { tenant: String, client: String, secret: Secret, scope: String },
    /// A Kubernetes account that stands for one; what is left out the environment says.
    EntraWorkload { tenant: Option<String>, client: Option<String>, token_file: Option<PathBuf>, scope: String },
    /// Whoever the machine runs as, or one of several by its client id.
    EntraManaged { client: Option<String>, scope: String },
}

impl Identity {
    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Aws { profile: None, .. } => "signed with what AWS's default chain finds",
            Self::Aws { profile: Some(_), .. } => "signed with a profile's AWS keys",
            Self::GoogleDefault => "Google's application default credentials",
            Self::GoogleFile(_) => "tokens for a Google credential file",
            Self::GoogleMetadata => "tokens of Google's metadata server",
            Self::EntraSecret { .. } => "Entra tokens for an application's secret",
            Self::EntraWorkload { .. } => "Entra tokens for a workload identity",
            Self::EntraManaged { .. } => "Entra tokens for a managed identity",
        }
    }
}

impl Reader<'_> {
    /// The `identity` of a provider: one word, or a mapping.
    pub(super) fn identity(&mut self, map: &mut Map<'_>, upstream: &Upstream) -> Option<Identity> {
        let cloud = upstream.provider.cloud?;
        let node = map.take("identity")?;
        let word = node.text();
        let identity = match cloud {
            Cloud::Aws if word == Some("default") => Some(aws(None, upstream)),
            Cloud::Google if word == Some("default") => Some(Identity::GoogleDefault),
            Cloud::Google if word == Some("metadata") => Some(Identity::GoogleMetadata),
            Cloud::Entra if word == Some("managed") => Some(managed(None)),
            Cloud::Entra if word == Some("workload") => Some(workload()),
            _ if word.is_some() => None,
            _ => return self.identity_of(cloud, node, upstream),
        };
        if identity.is_none() {
            self.problems.add(node.line(), format!("`identity` is not {}", expected(cloud)));
        }
        identity
    }

    fn identity_of(&mut self, cloud: Cloud, node: Node<'_>, upstream: &Upstream) -> Option<Identity> {
        let mut map = Map::new(node, &mut self.problems);
        let line = map.line();
        let identity = match cloud {
            Cloud::Aws => self.text(&mut map, "profile").map(|(_, profile)| aws(Some(profile), upstream)),
            Cloud::Google => self.path(&mut map, "file").and_then(|path| self.google_file(line, path)),
            Cloud::Entra => self.entra(&mut map),
        };
        map.finish(&mut self.problems);
        if identity.is_none() && cloud != Cloud::Google {
            self.problems.add(line, format!("`identity` is not {}", expected(cloud)));
        }
        identity
    }

    fn google_file(&mut self, line: usize, path: PathBuf) -> Option<Identity> {
        let name = path.display().to_string();
        self.files.push(Stamp::of(&path));
        let text = std::fs::read_to_string(&path);
        let kind = |text: &str| Some(serde_json::from_str::<serde_json::Value>(text).ok()?.get("type")?.as_str()?.to_owned());
        match text {
            Ok(text) if kind(&text).is_some_and(|kind| GOOGLE_FILES.contains(&kind.as_str())) => {
                return Some(Identity::GoogleFile(Secret::new(text)));
            }
            Ok(_) => self.problems.add(line, format!("{name} is no credential file of Google's ({})", GOOGLE_FILES.join(", "))),
            Err(error) => self.problems.add(line, format!("{name} cannot be read: {error}")),
        }
        None
    }

    fn entra(&mut self, map: &mut Map<'_>) -> Option<Identity> {
        let [tenant, client, secret, scope] =
            ["tenant_id", "client_id", "client_secret", "scope"].map(|key| self.text(map, key).map(|(_, text)| text));
        let token_file = self.path(map, "token_file");
        let scope = scope.unwrap_or_else(|| ENTRA_SCOPE.to_owned());
        match (tenant, client, secret, token_file) {
            (Some(tenant), Some(client), Some(secret), None) => {
                Some(Identity::EntraSecret { tenant, client, secret: Secret::new(secret), scope })
            }
            (tenant, client, None, Some(file)) => Some(Identity::EntraWorkload { tenant, client, token_file: Some(file), scope }),
            (None, client, None, None) => Some(Identity::EntraManaged { client, scope }),
            _ => None,
        }
    }

    /// What the environment says the gateway is, if it says so.
    pub(super) fn identity_from_environment(&self, upstream: &Upstream) -> Option<Identity> {
        match upstream.provider.cloud? {
            Cloud::Aws => self.variable(AWS_CHAIN).map(|_| aws(None, upstream)),
            Cloud::Google => self.variable(&["GOOGLE_APPLICATION_CREDENTIALS"]).map(|_| Identity::GoogleDefault),
            Cloud::Entra => {
                let (tenant, client) = (self.variable(&["AZURE_TENANT_ID"])?, self.variable(&["AZURE_CLIENT_ID"])?);
                match self.variable(&["AZURE_CLIENT_SECRET"]) {
                    Some(secret) => {
                        Some(Identity::EntraSecret { tenant, client, secret: Secret::new(secret), scope: ENTRA_SCOPE.to_owned() })
                    }
                    None => self.variable(&["AZURE_FEDERATED_TOKEN_FILE"]).map(|_| workload()),
                }
            }
        }
    }
}

/// Who the gateway is to a provider of which nothing more is said: what the cloud's own tools would be there.
pub(super) fn usual(provider: &Provider, upstream: &Upstream) -> Option<Identity> {
    match provider.cloud? {
        Cloud::Aws => Some(aws(None, upstream)),
        Cloud::Google => Some(Identity::GoogleDefault),
        // A machine without an identity of Azure's is more common, and its key a better guess.
        Cloud::Entra => None,
    }
}

fn aws(profile: Option<String>, upstream: &Upstream) -> Identity {
    Identity::Aws { profile, region: upstream.place("region").unwrap_or("us-east-1").to_owned() }
}

fn managed(client: Option<String>) -> Identity {
    Identity::EntraManaged { client, scope: ENTRA_SCOPE.to_owned() }
}

fn workload() -> Identity {
    Identity::EntraWorkload { tenant: None, client: None, token_file: None, scope: ENTRA_SCOPE.to_owned() }
}

fn expected(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Aws => "`default` or `{profile: NAME}`",
        Cloud::Google => "`default`, `metadata` or `{file: PATH}`",
        Cloud::Entra => {
            "`managed`, `workload`, `{tenant_id, client_id, client_secret}`, `{tenant_id, client_id, token_file}` or `{client_id}`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source, load};

    fn read(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, yaml.replace("{here}", &folder.path().display().to_string())).unwrap();
        std::fs::write(folder.path().join("sa.json"), r#"{"type":"service_account"}"#).unwrap();
        std::fs::write(folder.path().join("no.json"), r#"{"type":"else"}"#).unwrap();
        let variable = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        load(&Source::File(path), &variable).map_err(|problems| problems.iter().map(|problem| problem.message.clone()).collect())
    }

    fn identity(yaml: &str, variables: &[(&str, &str)], name: &str) -> Option<Identity> {
        let config = read(yaml, variables).unwrap();
        config.upstream(name).and_then(|at| config.upstreams[at].identity.clone())
    }

    #[test]
    fn says_who_the_gateway_is() {
        let scope = || ENTRA_SCOPE.to_owned();
        let aws = |profile: Option<&str>| Identity::Aws { profile: profile.map(str::to_owned), region: "eu-west-1".to_owned() };
        let google = "providers: {vertex: {location: l, project: p, identity: ";
        let azure = "providers: {azure: {resource: r, identity: ";
        for (yaml, want) in [
            ("providers: {bedrock: {region: eu-west-1}}}".trim_end_matches("}").to_owned() + "}}", aws(None)),
            ("providers: {bedrock: {region: eu-west-1, identity: default}}".to_owned(), aws(None)),
            ("providers: {bedrock: {region: eu-west-1, identity: {profile: prod}}}".to_owned(), aws(Some("prod"))),
            ("providers: {vertex: {location: l, project: p}}".to_owned(), Identity::GoogleDefault),
            (format!("{google}metadata}}}}"), Identity::GoogleMetadata),
            (format!("{google}{{file: {{here}}/sa.json}}}}}}"), Identity::GoogleFile(Secret::new(r#"{"type":"service_account"}"#))),
            (format!("{azure}managed}}}}"), managed(None)),
            (format!("{azure}{{client_id: c}}}}}}"), managed(Some("c".to_owned()))),
            (format!("{azure}workload}}}}"), workload()),
            (
                format!("{azure}{{tenant_id: t, client_id: c, client_secret: s}}}}}}"),
                Identity::EntraSecret { tenant: "t".to_owned(), client: "c".to_owned(), secret: Secret::new("s"), scope: scope() },
            ),
        ] {
            let name = if yaml.contains("azure") {
                "azure"
            } else if yaml.contains("vertex") {
                "vertex"
            } else {
                "bedrock"
            };
            assert_eq!(identity(&yaml, &[], name), Some(want), "{yaml}");
        }
    }

    #[test]
    fn the_environment_may_say_it() {
        let region = ("AWS_REGION", "r");
        for (variables, name, found) in [
            (&[region, ("AWS_PROFILE", "p")][..], "bedrock", true),
            (&[region, ("AWS_WEB_IDENTITY_TOKEN_FILE", "f")], "bedrock", true),
            // Keys need no search.
            (&[region, ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_PROFILE", "p")], "bedrock", false),
            (&[("GOOGLE_CLOUD_PROJECT", "p"), ("GOOGLE_CLOUD_LOCATION", "l"), ("GOOGLE_APPLICATION_CREDENTIALS", "f")], "vertex", true),
            (
                &[("AZURE_OPENAI_RESOURCE", "r"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s")],
                "azure",
                true,
            ),
            (
                &[("AZURE_OPENAI_RESOURCE", "r"), ("AZURE_OPENAI_API_KEY", "k"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")],
                "azure",
                false,
            ),
        ] {
            let config = read("{}", variables).unwrap();
            let upstream = config.upstream(name).map(|at| &config.upstreams[at]).unwrap();
            assert_eq!(upstream.identity.is_some(), found, "{variables:?}");
        }
        assert!(read("{}", &[region]).unwrap().upstream("bedrock").is_none());
    }

    #[test]
    fn says_what_it_could_be() {
        for (yaml, want) in [
            ("providers: {bedrock: {region: r, identity: metadata}}", "`default` or `{profile: NAME}`"),
            ("providers: {vertex: {location: l, project: p, identity: {file: \"{here}/none.json\"}}}", "cannot be read"),
            ("providers: {vertex: {location: l, project: p, identity: {file: \"{here}/no.json\"}}}", "no credential file"),
            ("providers: {azure: {resource: r, identity: {tenant_id: t}}}", "`managed`, `workload`"),
            ("providers: {azure: {resource: r}}", "identity"),
            ("providers: {openai: {api_key: k, identity: default}}", "identity"),
            ("providers: {vertex: {location: l, project: p, base_url: \"http://far.example\", identity: default}}", "https"),
        ] {
            let told = read(yaml, &[]).unwrap_err();
            assert!(told.contains(want), "{yaml}: {told}");
        }
    }
}
