//! Many requests at once, by callers with budgets, to candidates that fail and recover, in simulated time: what limits count
//! is what entries say, nobody spends more than it may, and whoever can be served is.

use super::*;
use crate::config::{Source, load};
use crate::keys::{Key, Record};
use crate::ledger::Outcome;
use crate::limit::{Amount, Hold, Limits};
use crate::meter::prompt_tokens;
use crate::price::PicoUsd;
use http::header;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The first of a month, at midnight; a simulation stays within that month.
const BEGIN_MS: u64 = 1_772_323_200_000;
const DAY_MS: u64 = 86_400_000;
const CONCURRENT: usize = 6;
const PER_KEY: i128 = 20_000_000_000;
const PER_ORG: i128 = 35_000_000_000;
const PER_MONTH: i128 = 900_000_000_000;

const CONFIG: &str = "
providers:
  a: {base_url: 'http://a.test/v1', prices: mock}
  b: {base_url: 'http://b.test/v1', prices: openai}
  c: {base_url: 'http://c.test/v1', prices: openai}
aliases: {best: [{to: a/mock-small, weight: 2}, {to: b/gpt-5, weight: 1}, c/gpt-5-mini]}
retry: {again: 1, budget: 100%, eject_after: 3, eject_max: 30s}
limits:
  - {per: key, usd_per_day: 0.02}
  - {per: org, usd_per_day: 0.035}
  - {per: all, usd_per_month: 0.9, concurrent: 6}
";
const UPSTREAMS: [&str; 3] = ["a", "b", "c"];

/// Numbers in an order that looks like chance.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One request under way.
struct Flight {
    exchange: Box<Exchange>,
    hold: Hold,
    groups: [String; 3],
    reserved: i128,
    output_max: u64,
    prompt: u64,
    asked: Vec<usize>,
    charged: i128,
}

/// What has to come out, kept in the simplest way.
#[derive(Default)]
struct Books {
    /// By group: of the day, and of the month.
    spent: HashMap<String, i128>,
    reserved: HashMap<String, i128>,
}

impl Books {
    fn takes(&self, groups: &[String; 3], more: i128) -> bool {
        groups.iter().zip([PER_KEY, PER_ORG, PER_MONTH]).all(|(group, limit)| {
            let taken = self.spent.get(group).unwrap_or(&0) + self.reserved.get(group).unwrap_or(&0);
            taken < limit && taken + more <= limit
        })
    }

    fn reserve(&mut self, groups: &[String; 3], amount: i128) {
        groups.iter().for_each(|group| *self.reserved.entry(group.clone()).or_default() += amount);
    }

    fn settle(&mut self, groups: &[String; 3], reserved: i128, spent: i128) {
        self.reserve(groups, -reserved);
        groups.iter().for_each(|group| *self.spent.entry(group.clone()).or_default() += spent);
    }
}

struct World {
    config: Arc<Config>,
    health: Arc<Health>,
    limits: Arc<Limits>,
    keys: Vec<Arc<Key>>,
    dice: Dice,
    now: u64,
    /// Whether each candidate answers.
    up: [bool; 3],
    flights: Vec<Flight>,
    books: Books,
    ids: HashSet<String>,
    served: u64,
    refused: u64,
    failed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.yaml");
        std::fs::write(&path, CONFIG).unwrap();
        let config = Arc::new(load(&Source::File(path), &|_| None).unwrap_or_else(|list| panic!("{list:?}")));
        let key = |(id, org): (&str, &str)| {
            let json = serde_json::json!({"id": id, "name": id, "org": org, "created": "2026-01-01T00:00:00Z", "secrets": []});
            Arc::new(Key::of(serde_json::from_value::<Record>(json).unwrap()))
        };
        Self {
            health: Arc::new(Health::new(&config, None)),
            config,
            limits: Arc::default(),
            keys: [("k1", "x"), ("k2", "x"), ("k3", "y")].map(key).to_vec(),
            dice: Dice(seed),
            now: BEGIN_MS,
            up: [true; 3],
            flights: vec![],
            books: Books::default(),
            ids: HashSet::new(),
            served: 0,
            refused: 0,
            failed: 0,
        }
    }

    fn begin(&mut self) {
        let key = self.keys[usize::try_from(self.dice.below(3)).unwrap()].clone();
        let output_max = 1 + self.dice.below(400);
        let text = "word ".repeat(usize::try_from(self.dice.below(200)).unwrap());
        let body = serde_json::json!({"model": "best", "max_tokens": output_max, "messages": [{"role": "user", "content": text}]});
        let body = Bytes::from(body.to_string());
        let headers = HeaderMap::new();
        let head = Head { method: &Method::POST, path: "/v1/chat/completions", query: None, headers: &headers };
        let destination = route::destination(&head, &self.config).unwrap();
        let asked = Asked {
            request_id: format!("{:x}", self.dice.below(u64::MAX)),
            key: Some(key.clone()),
            now: self.now,
            health: self.health.clone(),
            memory: StoreHandle::default(),
        };
        let exchange = Exchange::plan(&head, destination, &body, self.config.clone(), asked).unwrap();
        let amount: Amount = exchange.max_cost(self.now);
        let groups = [format!("key {}", key.id), format!("org {}", key.org.as_deref().unwrap()), "all".to_owned()];
        let may = self.flights.len() < CONCURRENT && self.books.takes(&groups, amount.spend.0);
        let held = self.limits.reserve(&self.config.limits, &exchange.who(), amount, self.now);
        assert_eq!(held.is_ok(), may, "{held:?} for {amount:?} at {:?}", self.books.spent);
        let Ok(hold) = held else {
            self.refused += 1;
            return;
        };
        self.books.reserve(&groups, amount.spend.0);
        let prompt = prompt_tokens(&body);
        let reserved = amount.spend.0;
        self.flights.push(Flight { exchange, hold, groups, reserved, output_max, prompt, asked: vec![], charged: 0 });
    }

    /// The next attempt of one of those under way; it may be its last.
    fn go_on(&mut self) {
        let at = usize::try_from(self.dice.below(self.flights.len() as u64)).unwrap();
        let mut flight = self.flights.swap_remove(at);
        let upstream = flight.exchange.upstream_index();
        let name = self.config.upstreams[upstream].name.clone();
        let candidate = UPSTREAMS.iter().position(|known| *known == name).unwrap();
        flight.asked.push(candidate);
        flight.exchange.attempt(self.now);
        let ending =
            if self.up[candidate] { self.answer(&mut flight) } else { Ending::Failed(Error::UpstreamUnreachable { provider: name }) };
        // As the shell does: whether another follows is decided before the attempt is closed.
        let again = if ending == Ending::Complete {
            flight.exchange.succeed(self.now);
            None
        } else {
            flight.exchange.fail(None, None, self.now)
        };
        let closed = flight.exchange.close(&ending, self.now).unwrap();
        assert!(self.ids.insert(closed.entry.id.clone()), "an id twice");
        assert_eq!(closed.entry.open.attempt as usize, flight.asked.len());
        assert_eq!(closed.entry.outcome() == Outcome::Ok, ending == Ending::Complete);
        flight.charged += amount_of(&closed.entry).spend.0;
        if let Some(wait) = again {
            assert!(wait <= Duration::from_secs(1));
            flight.exchange.advance(&HeaderMap::new(), self.now).unwrap();
            self.flights.push(flight);
            return;
        }
        if ending == Ending::Complete {
            self.served += 1;
        } else {
            // Everybody was asked, twice.
            flight.asked.sort_unstable();
            assert_eq!(flight.asked, [0, 0, 1, 1, 2, 2]);
            self.failed += 1;
        }
        let came_to = flight.exchange.came_to;
        assert_eq!(came_to.spend, PicoUsd(flight.charged), "entries and limits differ");
        assert!(flight.charged <= flight.reserved, "{} of {}", flight.charged, flight.reserved);
        flight.hold.settle(came_to, self.now);
        self.books.settle(&flight.groups, flight.reserved, flight.charged);
    }

    /// An answer within what was asked for.
    fn answer(&mut self, flight: &mut Flight) -> Ending {
        let (prompt, output) = (self.dice.below(flight.prompt + 1), self.dice.below(flight.output_max + 1));
        let cached = self.dice.below(prompt + 1);
        let body = format!(
            "{{\"id\":\"c\",\"model\":\"{}\",\"choices\":[{{\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":{prompt},\
             \"completion_tokens\":{output},\"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}}}",
            flight.exchange.route.model,
            prompt + output
        );
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        flight.exchange.respond(200, &headers);
        let out = flight.exchange.push(Bytes::from(body.clone()), true, self.now);
        assert_eq!(out, body);
        assert!(flight.exchange.news(self.now).is_some());
        Ending::Complete
    }

    /// The next day, once all is settled.
    fn next_day(&mut self) {
        while !self.flights.is_empty() {
            self.go_on();
        }
        assert!(self.books.reserved.values().all(|reserved| *reserved == 0));
        let limit = |group: &str| {
            if group == "all" {
                PER_MONTH
            } else if group.starts_with("key") {
                PER_KEY
            } else {
                PER_ORG
            }
        };
        self.books.spent.iter().for_each(|(group, spent)| assert!(*spent <= limit(group), "{group} spent {spent}"));
        self.books.spent.retain(|group, _| group == "all");
        self.now = BEGIN_MS + ((self.now - BEGIN_MS) / DAY_MS + 1) * DAY_MS;
    }
}

#[test]
fn limits_count_what_entries_say_and_whoever_can_be_served_is() {
    let requests: u64 = std::env::var("TOLLGATE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000);
    let (mut served, mut refused, mut failed, mut seed) = (0, 0, 0, 1);
    while served + refused + failed < requests {
        let mut world = World::new(seed);
        for _ in 0..28 {
            for _ in 0..200 {
                world.now += world.dice.below(20_000);
                if world.dice.below(40) == 0 {
                    let one = usize::try_from(world.dice.below(3)).unwrap();
                    world.up[one] = !world.up[one];
                }
                if world.flights.is_empty() || world.dice.below(2) == 0 {
                    world.begin();
                } else {
                    world.go_on();
                }
            }
            world.next_day();
        }
        (served, refused, failed, seed) = (served + world.served, refused + world.refused, failed + world.failed, seed + 1);
    }
    // All of it happened.
    println!("{served} served, {refused} refused, {failed} failed");
    assert!(served > requests / 10 && refused > requests / 20 && failed > requests / 1000, "{served} {refused} {failed}");
}

/// Through a long day: who is down is asked by few, and who is up by all others.
#[test]
fn who_is_down_is_left_alone() {
    for down in 0..3 {
        let mut world = World::new(7);
        world.up[down] = false;
        let mut asked = [0; 3];
        for _ in 0..2000 {
            world.now += 100;
            world.begin();
            while let Some(flight) = world.flights.last() {
                let name = &world.config.upstreams[flight.exchange.upstream_index()].name;
                asked[UPSTREAMS.iter().position(|known| known == name).unwrap()] += 1;
                world.go_on();
            }
            world.books = Books::default();
            world.limits = Arc::default();
        }
        assert_eq!((world.served, world.failed), (2000, 0));
        // 200 s: three failures, then one probe after 1, 2, 4, 8, 16 and ever 30 s. The last candidate is only for need.
        let bound = 3 + 5 + 200 / 30 + 1;
        assert!(asked[down] <= bound, "{down}: {asked:?}");
        assert_eq!(asked.iter().sum::<u64>() - asked[down], 2000);
        assert!(down == 2 || asked[2] == 0, "{asked:?}");
    }
}
