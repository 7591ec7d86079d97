use super::*;

const EJECTION: Ejection = Ejection { failures: 3, max: Duration::from_secs(8) };

/// How long a circuit refuses from `now` on, by asking every millisecond.
fn left_out(circuit: &Circuit, now: u64) -> u64 {
    (0..).find(|ms| circuit.admits(now + ms)).unwrap()
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let circuit = Circuit::default();
    for _ in 0..2 {
        circuit.failed(0, Refusal::Failure, None, EJECTION);
        assert!(circuit.admits(0) && circuit.admits(0));
    }
    let mut now = 0;
    for want in [1000, 2000, 4000, 8000, 8000] {
        circuit.failed(now, Refusal::Failure, None, EJECTION);
        assert_eq!(left_out(&circuit, now), want);
        now += want;
        // Only the one just let through probes.
        assert!(!circuit.admits(now));
    }
    circuit.succeeded(now);
    assert!(circuit.admits(now) && circuit.admits(now));
    circuit.failed(now, Refusal::Failure, None, EJECTION);
    assert!(circuit.admits(now), "a success forgives");
}

#[test]
fn many_that_fail_at_once_eject_once() {
    let circuit = Circuit::default();
    (0..100).for_each(|_| circuit.failed(0, Refusal::Failure, None, EJECTION));
    assert_eq!(left_out(&circuit, 0), 1000);
}

#[test]
fn a_probe_that_never_ends_is_followed_by_another() {
    let circuit = Circuit::default();
    (0..3).for_each(|_| circuit.failed(0, Refusal::Failure, None, EJECTION));
    assert!(circuit.admits(1000) && !circuit.admits(1000 + PROBE_MS - 1) && circuit.admits(1000 + PROBE_MS));
}

#[test]
fn the_wait_that_a_provider_states_is_respected_up_to_the_longest_ejection() {
    let circuit = Circuit::default();
    circuit.failed(0, Refusal::Failure, Some(Duration::from_secs(6)), EJECTION);
    circuit.failed(10, Refusal::Failure, Some(Duration::from_secs(2)), EJECTION);
    // The response to a request that was in flight does not shorten it.
    circuit.succeeded(20);
    assert!(!circuit.admits(5999) && circuit.admits(6000));
    circuit.succeeded(6010);
    assert!(circuit.admits(0));
    for wait in [EJECTION.max + Duration::from_secs(1), WAIT_MAX] {
        let circuit = Circuit::default();
        circuit.failed(0, Refusal::Failure, Some(wait), EJECTION);
        assert!(!circuit.admits(millis(EJECTION.max) - 1) && circuit.admits(millis(EJECTION.max)));
    }
    let other = Circuit::default();
    other.failed(0, Refusal::Failure, Some(WAIT_MAX + Duration::from_secs(1)), EJECTION);
    assert!(other.admits(0), "more than a day is a plain failure");
}

#[test]
fn a_rate_limit_ejects_on_evidence_of_two_clients_or_of_the_account() {
    let wait = Some(Duration::from_secs(5));
    let circuit = Circuit::default();
    (0..100).for_each(|now| circuit.failed(now, Refusal::Limit { client: 1 }, wait, EJECTION));
    assert!(circuit.admits(100), "one client's limits are its own");
    circuit.failed(100 + LIMIT_EVIDENCE_MS, Refusal::Limit { client: 2 }, wait, EJECTION);
    assert!(circuit.admits(100 + LIMIT_EVIDENCE_MS), "too long after the other");
    circuit.failed(200 + LIMIT_EVIDENCE_MS, Refusal::Limit { client: 1 }, wait, EJECTION);
    assert_eq!(left_out(&circuit, 200 + LIMIT_EVIDENCE_MS), 5000);
    let account = Circuit::default();
    account.failed(0, Refusal::AccountLimit, wait, EJECTION);
    assert_eq!(left_out(&account, 0), 5000);
}

/// A thousand random histories: one that is asked again and again is never left out for longer than the bounds say, and
/// a success makes it whole.
#[test]
fn no_history_keeps_a_candidate_out_for_ever() {
    let mut random = 1u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..1000 {
        let (circuit, mut now, mut asked_until) = (Circuit::default(), 0, 0);
        for _ in 0..50 {
            now += next(3000);
            match next(4) {
                0 => circuit.succeeded(now),
                1 => {
                    let wait = next(20_000);
                    asked_until = asked_until.max(now + wait);
                    circuit.failed(now, Refusal::Failure, Some(Duration::from_millis(wait)), EJECTION);
                }
                2 => circuit.failed(now, Refusal::Failure, None, EJECTION),
                _ => drop(circuit.admits(now)),
            }
        }
        let bound = millis(EJECTION.max).max(PROBE_MS).max(asked_until.saturating_sub(now));
        let out = left_out(&circuit, now);
        assert!(out <= bound, "{out} > {bound}");
        circuit.succeeded(now + out);
        assert!(circuit.admits(0));
    }
}

#[test]
fn attempts_after_the_first_are_a_share_of_requests() {
    let budget = Budget::new(20);
    assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
    let mut spent = 0;
    for _ in 0..1000 {
        budget.earn();
        spent += usize::from(budget.spend());
    }
    assert_eq!(spent, 200);
    (0..10_000).for_each(|_| budget.earn());
    assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
}
