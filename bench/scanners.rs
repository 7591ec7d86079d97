//! The scanners in bytes per second: `cargo bench --bench scanners`.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tollgate::dialect::Dialect;
use tollgate::ledger::{Close, Ledger, Line, Open, Outcome, Rendered, Source, Used};
use tollgate::meter::{Framing, Meter};
use tollgate::price::PicoUsd;
use tollgate::route::RequestFields;
use tollgate::stream::event_stream::{EventStream, Piece};
use tollgate::stream::sse::Sse;
use tollgate::trace::Trace;
use tollgate::usage::Dimension;

/// Events of about so many bytes that cannot carry usage, after a first one that names the model.
fn stream(event_bytes: usize) -> Vec<u8> {
    let event = |content: &str| {
        format!(
            "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let pad = "x".repeat(event_bytes.saturating_sub(event("").len()));
    std::iter::repeat_n(event(&pad), (1 << 20) / event_bytes).collect::<String>().into_bytes()
}

/// Event-stream messages of a payload of so many bytes, as AWS's crate writes them.
fn messages(payload_bytes: usize) -> Vec<u8> {
    let payload = format!("{{\"delta\":{{\"text\":\"{}\"}}}}", "x".repeat(payload_bytes - 21));
    let text = |text: &str| HeaderValue::String(text.to_owned().into());
    let message = Message::new(payload.into_bytes())
        .add_header(Header::new(":event-type", text("contentBlockDelta")))
        .add_header(Header::new(":message-type", text("event")));
    let mut out = vec![];
    for _ in 0..(1 << 20) / payload_bytes {
        let _ = write_message_to(&message, &mut out);
    }
    out
}

fn scanners(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("meter");
    for event_bytes in [150, 4096] {
        let body = stream(event_bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("sse_{event_bytes}"), |bench| {
            bench.iter(|| {
                let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Sse(Sse::default()));
                black_box(&body).chunks(16 * 1024).for_each(|chunk| meter.push(chunk, |_| {}));
                meter.found().usages
            });
        });
    }
    let body = format!(
        "{{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"message\":{{\"content\":\"{}\"}}}}],\"usage\":{{\"prompt_tokens\":1}}}}",
        "word ".repeat(200_000)
    );
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("document", |bench| {
        bench.iter(|| {
            let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Whole);
            meter.push(black_box(body.as_bytes()), |_| {});
            meter.found().usages
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("sse");
    for event_bytes in [150, 4096] {
        let body = stream(event_bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("lines_{event_bytes}"), |bench| {
            bench.iter(|| {
                let (mut sse, mut count) = (Sse::default(), 0);
                sse.push(black_box(&body), |_| count += 1);
                count
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("event_stream");
    let body = messages(4096);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("messages_4096", |bench| {
        bench.iter(|| {
            let (mut stream, mut intact) = (EventStream::default(), 0);
            let count = |piece: Piece<'_>| intact += usize::from(piece == Piece::End { intact: true });
            stream.push(black_box(&body), count);
            intact
        });
    });
    group.bench_function("converse_4096", |bench| {
        bench.iter(|| {
            let mut meter = Meter::new(Dialect::Converse.grammar(), Framing::EventStream(EventStream::default()));
            black_box(&body).chunks(16 * 1024).for_each(|chunk| meter.push(chunk, |_| {}));
            meter.found().usages
        });
    });
    group.finish();
    let request =
        format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}],\"stream\":true}}", "word ".repeat(200_000));
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Bytes(request.len() as u64));
    let fields = || RequestFields::read(black_box(request.as_bytes()), Some(tollgate::dialect::Dialect::Chat));
    group.bench_function("request fields", |bench| bench.iter(fields));
    group.finish();
}

/// What a request pays for traces where nobody wants its own: without a `tracing` in the configuration there is nothing at all.
fn traces(criterion: &mut Criterion) {
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let mut group = criterion.benchmark_group("traces");
    group.bench_function("no_header", |bench| bench.iter(|| Trace::begin(black_box(None), 0.0, 1)));
    group.bench_function("not_sampled_by_the_caller", |bench| bench.iter(|| Trace::begin(black_box(Some(UNSAMPLED)), 0.0, 1)));
    group.finish();
}

/// Of this thread.
fn cpu_time() -> Duration {
    // What the kernel counts is brought up to date.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default())
}

/// What a request pays for its records: rendering the three, and writing twice (its end goes with the next one's beginning).
#[allow(clippy::expect_used)]
fn ledger(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).expect("a ledger");
    let text = str::to_owned;
    let open = Open {
        request_id: text("01a217bb-fea2-7259-a71c-a18baf2984de"),
        attempt: 1,
        start_ms: 1_795_694_526_115,
        provider: text("openai"),
        upstream: text("openai"),
        dialect: text("chat"),
        endpoint: text("/chat/completions"),
        model_requested: text("gpt-5-mini"),
        model: text("gpt-5-mini"),
        bytes_in: 989,
        billed: true,
        ..Open::default()
    };
    let usage = [(Dimension::Input, 255), (Dimension::CacheRead, 63), (Dimension::Output, 154)].into_iter().collect();
    let used = Used {
        reading: 1,
        source: Source::Reported,
        lines: vec![Line { model: text("gpt-5-mini"), usage, charge: PicoUsd(96_800_000), ..Line::default() }],
        total: PicoUsd(96_800_000),
        catalog: text("embedded 2026-11-01"),
        provider_cost: None,
        response_id: text("chatcmpl-0123456789"),
        unknown: vec![],
    };
    let close = Close {
        end_ms: 1_795_694_526_120,
        first_byte_ms: Some(1_795_694_526_119),
        status: 200,
        outcome: Outcome::Ok,
        error: None,
        cause: None,
        faults: vec![],
        bytes_out: 950,
        metered: true,
        last_reading: Some(1),
        complete: true,
    };
    let mut group = criterion.benchmark_group("ledger");
    group.bench_function("rendered", |bench| {
        bench.iter(|| (Rendered::open(black_box(&open)), Rendered::used(black_box(&used)), Rendered::close(black_box(&close))));
    });
    group.bench_function("written", |bench| {
        let id = "01a217bb-fea3-71ef-9602-d4c2afc816d6";
        // In CPU time: the disk is nobody's to wait for.
        bench.iter_custom(|times| {
            let before = cpu_time();
            (0..times).for_each(|_| {
                ledger.append(id, &Rendered::open(black_box(&open))).expect("written");
                ledger.append_or_keep(id, &Rendered::used(black_box(&used))).expect("written");
                ledger.append_later(id, &Rendered::close(black_box(&close)));
            });
            cpu_time().saturating_sub(before)
        });
    });
    group.finish();
}

criterion_group!(benches, scanners, traces, ledger);
criterion_main!(benches);
