//! Reads where copies of the ledger go.

use super::Secret;
use super::file::Reader;
use crate::yaml::{Map, Node};
use std::path::{Path, PathBuf};

/// Where copies of the ledger go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// The database, made if it is not there.
    pub sqlite: Option<PathBuf>,
    pub webhook: Option<WebhookRules>,
    pub postgres: Option<PostgresRules>,
    pub clickhouse: Option<ClickHouseRules>,
    pub kafka: Option<KafkaRules>,
}

/// Which PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresRules {
    /// With the password, if there is one.
    pub url: Secret,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// Which ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouseRules {
    /// Of its HTTP interface.
    pub url: String,
    pub database: String,
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// Which Kafka, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaRules {
    /// Hosts and ports.
    pub brokers: Vec<String>,
    pub topic: String,
    pub tls: bool,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// For SASL's PLAIN.
    pub user: Option<String>,
    pub password: Option<Secret>,
}

impl Sinks {
    /// Those that are configured, by name.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let Self { sqlite, webhook, postgres, clickhouse, kafka } = self;
        let all = [
            ("sqlite", sqlite.is_some()),
            ("webhook", webhook.is_some()),
            ("postgres", postgres.is_some()),
            ("clickhouse", clickhouse.is_some()),
            ("kafka", kafka.is_some()),
        ];
        all.into_iter().filter(|(_, configured)| *configured).map(|(name, _)| name)
    }
}

/// Who is posted entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRules {
    pub url: String,
    /// Signs what is posted.
    pub secret: Option<Secret>,
}

/// The database beside the ledger.
pub const DATABASE: &str = "usage.db";

impl Reader<'_> {
    pub(super) fn sinks(&mut self, node: Option<Node<'_>>, data: &Path) -> Sinks {
        let mut sinks = Sinks { sqlite: Some(data.join(DATABASE)), ..Sinks::default() };
        let Some(node) = node else { return sinks };
        let mut map = Map::new(node, &mut self.problems);
        if map.take_bool("sqlite", &mut self.problems) == Some(false) {
            sinks.sqlite = None;
        }
        sinks.webhook = self.configured(&mut map, "webhook", Self::webhook);
        sinks.postgres = self.configured(&mut map, "postgres", Self::postgres);
        sinks.clickhouse = self.configured(&mut map, "clickhouse", Self::clickhouse);
        sinks.kafka = self.configured(&mut map, "kafka", Self::kafka);
        map.finish(&mut self.problems);
        sinks
    }

    /// One that is not `off`.
    fn configured<T>(&mut self, map: &mut Map<'_>, key: &'static str, read: impl FnOnce(&mut Self, &mut Map<'_>) -> T) -> Option<T> {
        let node = map.take(key).filter(|node| !matches!(node.text(), Some("off" | "false")))?;
        let mut map = Map::new(node, &mut self.problems);
        let rules = read(self, &mut map);
        map.finish(&mut self.problems);
        Some(rules)
    }

    fn webhook(&mut self, map: &mut Map<'_>) -> WebhookRules {
        WebhookRules { url: self.http_url(map, "a webhook"), secret: self.secret(map, "secret") }
    }

    fn postgres(&mut self, map: &mut Map<'_>) -> PostgresRules {
        let line = map.line();
        let ca = self.ca(map);
        let (line, url) = self.text(map, "url").unwrap_or((line, String::new()));
        if cfg!(not(feature = "postgres")) {
            self.problems.add(line, "this tollgate was built without PostgreSQL (feature `postgres`)");
        }
        #[cfg(feature = "postgres")]
        if url.is_empty() || crate::sink::postgres::config_of(&url).is_err() {
            // It may hold a password: it is not shown.
            self.problems.add(line, "`url` must be that of a database (postgres://user:password@host/database)");
        }
        PostgresRules { url: Secret::new(url), ca }
    }

    fn clickhouse(&mut self, map: &mut Map<'_>) -> ClickHouseRules {
        ClickHouseRules {
            url: self.http_url(map, "ClickHouse"),
            database: self.text(map, "database").map_or_else(|| "default".to_owned(), |(_, name)| name),
            user: self.text(map, "user").map(|(_, user)| user),
            password: self.secret(map, "password"),
        }
    }

    fn kafka(&mut self, map: &mut Map<'_>) -> KafkaRules {
        let line = map.line();
        let rules = KafkaRules {
            brokers: self.texts(map, "brokers"),
            topic: self.text(map, "topic").map_or_else(|| "tollgate".to_owned(), |(_, topic)| topic),
            tls: map.take_bool("tls", &mut self.problems).unwrap_or(false),
            ca: self.ca(map),
            user: self.text(map, "user").map(|(_, user)| user),
            password: self.secret(map, "password"),
        };
        if cfg!(not(feature = "kafka")) {
            self.problems.add(line, "this tollgate was built without Kafka (feature `kafka`)");
        }
        let numbered =
            |broker: &String| broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if rules.brokers.is_empty() || !rules.brokers.iter().all(numbered) {
            self.problems.add(line, "Kafka needs its `brokers`, each a host and a port ([kafka-1:9092])");
        }
        if rules.user.is_some() != rules.password.is_some() {
            self.problems.add(line, "`user` and `password` go together");
        }
        rules
    }

    fn ca(&mut self, map: &mut Map<'_>) -> Option<PathBuf> {
        let (line, path) = (map.line(), self.path(map, "ca"));
        path.iter().for_each(|path| self.check_certificates(line, path));
        path
    }

    fn secret(&mut self, map: &mut Map<'_>, key: &'static str) -> Option<Secret> {
        self.text(map, key).map(|(_, secret)| Secret::new(secret))
    }

    fn http_url(&mut self, map: &mut Map<'_>, whose: &str) -> String {
        let line = map.line();
        let (line, url) = self.text(map, "url").unwrap_or((line, String::new()));
        if !url.starts_with("https://") && !url.starts_with("http://") {
            self.problems.add(line, format!("{whose} needs its `url` (https://…)"));
        }
        url
    }
}
