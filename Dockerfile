# docker build -t tollgate . && docker run -p 8080:8080 -v tollgate:/data -v ./tollgate.yaml:/etc/tollgate.yaml:ro tollgate
# The configuration names addresses that can be reached (listen: ["0.0.0.0:8080"]), keys, and `data: /data`.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/tollgate /usr/local/bin/tollgate
# The ledger outlives the container.
COPY --from=build --chown=nonroot:nonroot /data /data
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["-c", "/etc/tollgate.yaml"]
