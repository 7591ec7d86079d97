//! The scanners in bytes per second: `cargo bench --bench scanners`.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tollgate::dialect::Dialect;
use tollgate::meter::{Framing, Meter};
use tollgate::route::Facts;
use tollgate::stream::event_stream::{EventStream, Piece};
use tollgate::stream::sse::Sse;
use tollgate::trace::Trace;

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
    group.bench_function("facts", |bench| bench.iter(|| Facts::read(black_box(request.as_bytes()))));
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

criterion_group!(benches, scanners, traces);
criterion_main!(benches);
