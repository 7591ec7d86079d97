//! How much later events arrive through a proxy: the upstream of the proxies and the callers of one of them, in one process
//! with one clock. `probe UPSTREAM PROXY STREAMS SECONDS PAUSE_MS` prints microseconds as JSON. With the upstream's own
//! address as PROXY it says what the way takes without any.

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Events of a stream, each of which comes alone; then the next stream begins on the same connection.
const EVENTS: u32 = 20;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const END: &[u8] = b"data: [DONE]\n\n\r\n0\r\n\r\n";
/// Before the time at which an event was sent.
const MARK: &[u8] = b"\"content\":\"";

fn event(since: Instant) -> String {
    let sent = since.elapsed().as_nanos();
    let event = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock-small\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{sent:020}\"}}}}]}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

async fn provide(mut stream: TcpStream, since: Instant, pause: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![];
    loop {
        // A request ends with its body, and that with a brace, also where a proxy adds to it.
        while !buffer.ends_with(b"}") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        stream.write_all((HEAD.to_owned() + &event(since)).as_bytes()).await?;
        for _ in 1..EVENTS {
            tokio::time::sleep(pause).await;
            stream.write_all(event(since).as_bytes()).await?;
        }
        stream.write_all(format!("{:x}\r\n", END.len() - 7).as_bytes()).await?;
        stream.write_all(END).await?;
    }
}

/// Microseconds to the first event, and of each event on its way.
#[derive(Default)]
struct Seen {
    first: Vec<f64>,
    events: Vec<f64>,
}

async fn ask(proxy: String, since: Instant, until: Instant) -> std::io::Result<Seen> {
    let body = r#"{"model":"mock-small","messages":[{"role":"user","content":"x"}],"stream":true}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {proxy}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&proxy).await?;
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Seen::default(), vec![0; 65536]);
    while Instant::now() < until {
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let (mut kept, mut came) = (vec![], 0);
        while !kept.ends_with(b"0\r\n\r\n") {
            let read = stream.read(&mut buffer).await?;
            let now = since.elapsed();
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
            while let Some(at) = kept.windows(MARK.len()).position(|window| window == MARK) {
                let Some(digits) = kept.get(at + MARK.len()..at + MARK.len() + 20) else { break };
                let sent = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).map_or(now, Duration::from_nanos);
                seen.events.push((now.saturating_sub(sent)).as_secs_f64() * 1e6);
                if came == 0 {
                    seen.first.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                came += 1;
                kept.drain(..at + MARK.len() + 20);
            }
        }
        if came != EVENTS {
            return Err(std::io::Error::other(format!("{came} events came")));
        }
    }
    Ok(seen)
}

fn percentiles(mut values: Vec<f64>) -> String {
    values.sort_unstable_by(f64::total_cmp);
    let rank =
        |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0);
    format!("{{\"count\":{},\"p50\":{:.1},\"p99\":{:.1},\"p999\":{:.1}}}", values.len(), rank(0.5), rank(0.99), rank(0.999))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, upstream, proxy, streams, seconds, pause_ms] = &args[..] else {
        eprintln!("usage: probe UPSTREAM PROXY STREAMS SECONDS PAUSE_MS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse().unwrap_or(1);
    let (since, listener, pause) = (Instant::now(), TcpListener::bind(upstream).await?, Duration::from_millis(number(pause_ms)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(provide(stream, since, pause));
        }
    });
    let until = since + Duration::from_secs(number(seconds));
    let count = number(streams) as u32;
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..count {
        let proxy = proxy.clone();
        asking.spawn(async move {
            // Not all at once.
            tokio::time::sleep(pause * at / count.max(1)).await;
            ask(proxy, since, until).await
        });
    }
    let mut seen = Seen::default();
    while let Some(done) = asking.join_next().await {
        let one = done.map_err(std::io::Error::other)??;
        seen.first.extend(one.first);
        seen.events.extend(one.events);
    }
    println!("{{\"first\":{},\"event\":{}}}", percentiles(seen.first), percentiles(seen.events));
    Ok(())
}
