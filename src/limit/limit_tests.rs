use super::*;

const MINUTE: u64 = 60_000;
/// 2026-01-31 23:59:00 UTC.
const NOW: u64 = 1_769_903_940_000;

fn rule(per: Per) -> Rule {
    Rule {
        name: "rule".to_owned(),
        key: None,
        org: None,
        project: None,
        model: None,
        per,
        requests_per_minute: None,
        tokens_per_minute: None,
        concurrent: None,
        spend_per_day: None,
        spend_per_month: None,
    }
}

fn who(key: &str) -> Who<'_> {
    Who { key: Some((key, key)), org: Some("acme"), model: "m", served: "m", ..Who::default() }
}

fn dollars(count: i128) -> PicoUsd {
    PicoUsd(count * 1_000_000_000_000)
}

fn tokens(tokens: u64) -> Amount {
    Amount { tokens, ..Amount::default() }
}

#[test]
fn requests_come_at_once_and_then_as_they_drain() {
    let (limits, rules) = (Arc::new(Limits::default()), Arc::from([Rule { requests_per_minute: Some(60), ..rule(Per::Key) }]));
    let ask = |key, now| limits.reserve(&rules, &who(key), tokens(1), now);
    for left in (0..60).rev() {
        let standing = ask("a", NOW).unwrap().standing.requests.unwrap();
        assert_eq!((standing.limit, standing.remaining, standing.reset_ms), (60, left, (60 - left) * 1000));
    }
    assert_eq!(ask("a", NOW).unwrap_err(), Exceeded { kind: Kind::Requests, limit: 60, retry_ms: 1000 });
    assert_eq!(ask("a", NOW + 400).unwrap_err().retry_ms, 600);
    assert!(ask("b", NOW).is_ok(), "each key alone");
    assert!(ask("a", NOW + 1000).is_ok() && ask("a", NOW + 1000).is_err());
    assert_eq!(ask("a", NOW + 10 * MINUTE).unwrap().standing.requests.unwrap().remaining, 59);
    // A clock that goes back gives nothing away.
    assert!((0..59).all(|_| ask("a", NOW).is_ok()) && ask("a", NOW).is_err());
}

#[test]
fn tokens_are_reserved_and_settled() {
    let (limits, rules) = (Arc::new(Limits::default()), Arc::from([Rule { tokens_per_minute: Some(1000), ..rule(Per::Org) }]));
    let ask = |count| limits.reserve(&rules, &who("a"), tokens(count), NOW);
    let hold = ask(900).unwrap();
    assert_eq!(ask(101).unwrap_err(), Exceeded { kind: Kind::Tokens, limit: 1000, retry_ms: 60 });
    hold.settle(tokens(100), NOW);
    let hold = ask(900).unwrap();
    assert!(ask(1).is_err());
    // It came to more than was thought: the next ones wait for it.
    hold.settle(tokens(2900), NOW);
    assert_eq!(ask(1000).unwrap_err().retry_ms, 180_000);
    // More than fits at all is not refused for ever.
    assert!(limits.reserve(&rules, &who("a"), tokens(5000), NOW + 3 * MINUTE).is_ok());
}

#[test]
fn money_is_counted_by_day_and_month() {
    let rules: Arc<[Rule]> = Arc::from([Rule { spend_per_day: Some(dollars(10)), spend_per_month: Some(dollars(15)), ..rule(Per::All) }]);
    let limits = Arc::new(Limits::default());
    let ask = |count, now| limits.reserve(&rules, &who("a"), Amount { tokens: 0, spend: dollars(count) }, now);
    let hold = ask(10, NOW).unwrap();
    assert_eq!(ask(0, NOW).unwrap_err(), Exceeded { kind: Kind::Reserved, limit: 10, retry_ms: 1000 });
    assert_eq!(ask(11, NOW).unwrap_err(), Exceeded { kind: Kind::Day, limit: 10, retry_ms: MINUTE });
    hold.settle(Amount { tokens: 0, spend: dollars(9) }, NOW);
    assert!(ask(2, NOW).is_err());
    ask(1, NOW).unwrap().settle(Amount { tokens: 0, spend: dollars(1) }, NOW);
    // February, and another day.
    let later = NOW + MINUTE;
    (0..3).for_each(|day| {
        ask(5, later + day * 86_400_000).unwrap().settle(Amount { tokens: 0, spend: dollars(5) }, later + day * 86_400_000)
    });
    let refused = ask(1, later + 3 * 86_400_000).unwrap_err();
    assert_eq!((refused.kind, refused.limit, refused.retry_ms), (Kind::Month, 15, 25 * 86_400_000));
    assert!(ask(10, later + 28 * 86_400_000).is_ok());
}

#[test]
fn what_was_spent_before_counts_and_what_is_over_does_not() {
    let rules: Arc<[Rule]> = Arc::from([Rule { spend_per_day: Some(dollars(10)), ..rule(Per::Key) }]);
    let limits = Arc::new(Limits::default());
    limits.recall(&*rules, &who("a"), Amount { tokens: 0, spend: dollars(100) }, NOW - 86_400_000);
    limits.recall(&*rules, &who("a"), Amount { tokens: 0, spend: dollars(6) }, NOW - 1000);
    let ask = |count| limits.reserve(&rules, &who("a"), Amount { tokens: 0, spend: dollars(count) }, NOW);
    assert!(ask(5).is_err() && ask(4).is_ok());
}

#[test]
fn no_more_at_once_than_may_and_all_rules_or_none() {
    let rules: Arc<[Rule]> = Arc::from([
        Rule { requests_per_minute: Some(10), ..rule(Per::All) },
        Rule { name: "second".to_owned(), concurrent: Some(2), ..rule(Per::Key) },
    ]);
    let limits = Arc::new(Limits::default());
    let ask = || limits.reserve(&rules, &who("a"), Amount::default(), NOW);
    let (one, _two) = (ask().unwrap(), ask().unwrap());
    (0..20).for_each(|_| assert_eq!(ask().unwrap_err().kind, Kind::Concurrent));
    one.settle(Amount::default(), NOW);
    // Those that were refused took nothing of the other rule.
    assert_eq!(ask().unwrap().standing.requests.unwrap().remaining, 7);
}

#[test]
fn a_rule_holds_for_whom_it_names() {
    let asks = Who {
        key: Some(("1f", "ci")),
        org: Some("acme"),
        project: Some("shop"),
        user: Some("u"),
        model: "fast",
        served: "gpt-5",
        ..Who::default()
    };
    for (rule, want) in [
        (Rule { key: Some("ci".to_owned()), ..rule(Per::Key) }, Some("1f")),
        (Rule { key: Some("1f".to_owned()), ..rule(Per::Org) }, Some("acme")),
        (Rule { key: Some("other".to_owned()), ..rule(Per::Key) }, None),
        (Rule { model: Some("gpt-*".to_owned()), ..rule(Per::Model) }, Some("gpt-5")),
        (Rule { model: Some("fast".to_owned()), ..rule(Per::All) }, Some("")),
        (Rule { model: Some("claude*".to_owned()), ..rule(Per::All) }, None),
        (Rule { project: Some("shop".to_owned()), ..rule(Per::Project) }, Some("acme\nshop")),
        (rule(Per::User), Some("1f\nu")),
    ] {
        assert_eq!(rule.group(&asks).as_deref(), want, "{rule:?}");
    }
    // A model that may serve in place of the one that is named.
    let others = ["gpt-5-pro".to_owned()];
    let rule = Rule { model: Some("gpt-5-pro".to_owned()), ..rule(Per::All) };
    assert_eq!((rule.group(&asks), rule.group(&Who { others: &others, ..asks })), (None, Some(String::new())));
}

#[test]
fn clients_without_a_name_share_a_group() {
    for (per, want) in [(Per::Org, ""), (Per::Project, "\n"), (Per::User, "\n"), (Per::Key, ""), (Per::All, "")] {
        assert_eq!(rule(per).group(&Who::default()).as_deref(), Some(want), "{per:?}");
    }
    // A rule that names an organisation holds for nobody else.
    assert_eq!(Rule { org: Some("acme".to_owned()), ..rule(Per::Org) }.group(&Who::default()), None);
    let served = |served| rule(Per::Model).group(&Who { served, ..Who::default() });
    assert_eq!(served("GPT-4o-Mini"), served("gpt-4o-mini"));
}

#[test]
fn a_clock_that_goes_back_and_forth_over_midnight_forgets_nothing() {
    let (limits, rules) = (Arc::new(Limits::default()), Arc::from([Rule { spend_per_day: Some(dollars(3)), ..rule(Per::Key) }]));
    let one = Amount { tokens: 0, spend: dollars(1) };
    let ask = |now| limits.reserve(&rules, &who("a"), one, now).map(|hold| hold.settle(one, now)).is_ok();
    let midnight = (day(NOW) + 1) * 86_400_000;
    assert!(ask(midnight + 1000) && ask(midnight + 2000));
    // An hour back, into the day before, and forth again.
    assert!(ask(midnight - 3_600_000));
    assert!(!ask(midnight - 3_600_000) && !ask(midnight + 3000));
    // The next day has its own three dollars.
    assert!(ask(midnight + 86_400_000));
}

#[test]
fn what_was_spent_on_other_days_is_not_counted_today() {
    let mut spending = Spending::default();
    let dollars = |amount: i128| PicoUsd(amount * 1_000_000_000_000);
    // In any order, as after a restart: entries of batches are not in the order of time.
    for (period, amount) in [(30, 1), (29, 5), (12, 7), (30, 1), (28, 9)] {
        spending.add(period, dollars(amount));
    }
    assert_eq!(spending.room(30, dollars(1), dollars(3)), Room::Enough);
    assert_eq!(spending.room(30, dollars(2), dollars(3)), Room::Spent);
    assert!(spending.matters(30) && !spending.matters(31));
}

/// However many ask at once: never more than there is, while what they come to is what was reserved.
#[test]
fn threads_never_overspend() {
    let rules: Arc<[Rule]> = Arc::from([Rule { spend_per_month: Some(dollars(100)), ..rule(Per::All) }]);
    let limits = Arc::new(Limits::default());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (limits, rules) = (limits.clone(), rules.clone());
            std::thread::spawn(move || {
                let spend = Amount { tokens: 0, spend: dollars(1) };
                (0..100).filter(|_| limits.reserve(&rules, &who("a"), spend, NOW).map(|hold| hold.settle(spend, NOW)).is_ok()).count()
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 100);
}

#[test]
fn what_is_given_up_holds_nothing() {
    let rules: Arc<[Rule]> = Arc::from([Rule { concurrent: Some(1), spend_per_day: Some(dollars(1)), ..rule(Per::All) }]);
    let limits = Arc::new(Limits::default());
    let ask = || limits.reserve(&rules, &who("a"), Amount { tokens: 0, spend: dollars(1) }, NOW);
    (0..3).for_each(|_| drop(ask().unwrap()));
    let held = ask().unwrap();
    assert!(ask().is_err());
    drop(held);
    assert!(ask().is_ok());
}

#[test]
fn groups_that_callers_make_up_are_forgotten() {
    let spent = Amount { tokens: 5, spend: dollars(1) };
    // What was spent matters where money is counted alone.
    for (rule, spent) in [
        (Rule { requests_per_minute: Some(1), ..rule(Per::User) }, spent),
        (Rule { requests_per_minute: Some(1), spend_per_month: Some(dollars(1)), ..rule(Per::User) }, Amount::default()),
    ] {
        let rules: Arc<[Rule]> = Arc::from([rule]);
        let limits = Arc::new(Limits::default());
        for at in 0..=GROUPS_MAX as u64 {
            let user = at.to_string();
            let who = Who { user: Some(&user), ..who("a") };
            limits.reserve(&rules, &who, Amount::default(), NOW + at * 10).unwrap().settle(spent, NOW + at * 10);
        }
        assert!(limits.counters().by_rule["rule"].len() < GROUPS_MAX);
    }
}

#[test]
fn a_rule_says_what_it_is() {
    let told =
        Rule { tokens_per_minute: Some(5), spend_per_day: Some(dollars(2)), org: Some("acme".to_owned()), ..rule(Per::Org) }.to_string();
    assert_eq!(told, "tokens_per_minute 5, usd_per_day 2.00, per org, of org acme");
}

#[test]
fn a_clock_that_is_set_back_ends_no_limit() {
    let (limits, rules) = (Arc::new(Limits::default()), Arc::from([Rule { spend_per_day: Some(dollars(2)), ..rule(Per::Key) }]));
    let one = Amount { tokens: 0, spend: dollars(1) };
    let ask = |now| limits.reserve(&rules, &who("a"), one, now).map(|hold| hold.settle(one, now));
    assert!(ask(NOW + 86_400_000).is_ok());
    // Back to today, which has its two dollars, one of them spent.
    assert!(ask(NOW).is_ok());
    assert!(ask(NOW + 1000).is_err());
    // A bucket does not wait for the time that was shown.
    let (limits, rules) = (Arc::new(Limits::default()), Arc::from([Rule { requests_per_minute: Some(60), ..rule(Per::Key) }]));
    let ask = |now| limits.reserve(&rules, &who("a"), one, now).is_ok();
    assert!((0..60).all(|_| ask(NOW + 3_600_000)) && !ask(NOW + 3_600_000));
    assert!(!ask(NOW));
    assert!(ask(NOW + 1000) && !ask(NOW + 1000));
}
