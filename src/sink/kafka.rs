//! Kafka: each entry is a message, its id the key; partitions are chosen by it. A batch that fails comes again whole, and
//! what was taken of it a second time: consumers know entries by their key.

use super::{Cursor, CursorFile, Sink};
use crate::config::KafkaRules;
use crate::ledger::Entry;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// To reach the brokers and learn who has the topic.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a batch to be taken.
const PUT_TIMEOUT: Duration = Duration::from_secs(30);
/// Brokers refuse more than a mebibyte at once unless they are told otherwise.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// The topic.
pub struct Kafka {
    runtime: Runtime,
    partitions: Vec<PartitionClient>,
    cursor: CursorFile,
}

impl Kafka {
    /// Connects, and finds the topic's partitions.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn open(rules: &KafkaRules, folder: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let mut builder = ClientBuilder::new(rules.brokers.clone()).client_id("tollgate");
        if rules.tls {
            builder = builder.tls_config(Arc::new(super::tls(rules.ca.as_deref())?));
        }
        if let (Some(user), Some(password)) = (&rules.user, &rules.password) {
            builder = builder.sasl_config(SaslConfig::Plain(Credentials::new(user.clone(), password.expose().to_owned())));
        }
        let begun = async {
            let client = builder.build().await.map_err(|error| error.to_string())?;
            let topics = client.list_topics().await.map_err(|error| error.to_string())?;
            let topic = topics.into_iter().find(|topic| topic.name == rules.topic);
            let topic = topic.ok_or_else(|| format!("there is no topic `{}`", rules.topic))?;
            let mut partitions = vec![];
            for partition in topic.partitions {
                let client = client.partition_client(&rules.topic, partition, UnknownTopicHandling::Error).await;
                partitions.push(client.map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(partitions)
        };
        let partitions = runtime.block_on(async { tokio::time::timeout(CONNECT_TIMEOUT, begun).await });
        let partitions = partitions.map_err(|_| "no broker answered in time".to_owned())??;
        if partitions.is_empty() {
            return Err(format!("topic `{}` has no partitions", rules.topic));
        }
        Ok(Self { runtime, partitions, cursor: CursorFile::new(folder.join("kafka.json")) })
    }

    fn produce(&self, partition: &PartitionClient, records: Vec<Record>) -> Result<(), String> {
        let produced = partition.produce(records, Compression::Gzip);
        let produced = self.runtime.block_on(async { tokio::time::timeout(PUT_TIMEOUT, produced).await });
        produced.map_err(|_| "no broker answered in time".to_owned())?.map(drop).map_err(|error| error.to_string())
    }
}

impl Sink for Kafka {
    fn cursor(&mut self) -> Result<Cursor, String> {
        self.cursor.read()
    }

    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String> {
        let mut batches: Vec<Vec<Record>> = self.partitions.iter().map(|_| vec![]).collect();
        for entry in entries {
            let at = crc32fast::hash(entry.id.as_bytes()) as usize % batches.len();
            if let Some(batch) = batches.get_mut(at) {
                batch.push(record(entry)?);
            }
        }
        for (partition, batch) in self.partitions.iter().zip(batches) {
            let (mut records, mut bytes) = (vec![], 0);
            for record in batch {
                let size = record.approximate_size();
                if bytes + size > BATCH_BYTES_MAX && !records.is_empty() {
                    self.produce(partition, std::mem::take(&mut records))?;
                    bytes = 0;
                }
                bytes += size;
                records.push(record);
            }
            if !records.is_empty() {
                self.produce(partition, records)?;
            }
        }
        cursor.map_or(Ok(()), |cursor| self.cursor.write(cursor))
    }
}

fn record(entry: &Entry) -> Result<Record, String> {
    let ended = entry.close.as_ref().map_or(entry.open.start_ms, |close| close.end_ms);
    let timestamp = i64::try_from(ended).ok().and_then(chrono::DateTime::from_timestamp_millis);
    Ok(Record {
        key: Some(entry.id.clone().into_bytes()),
        value: Some(serde_json::to_vec(entry).map_err(|error| error.to_string())?),
        headers: BTreeMap::new(),
        timestamp: timestamp.unwrap_or_default(),
    })
}
