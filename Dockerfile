# Runs `causeway serve` with settings from the environment (CAUSEWAY_*) or a mounted proxy.toml.
FROM rust:1-slim-bookworm AS build
WORKDIR /causeway
COPY . .
RUN cargo build --release --locked --bin causeway

FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home causeway
COPY --from=build /causeway/target/release/causeway /usr/local/bin/causeway
USER causeway
# Inside a container loopback would reach nobody. Publish the ports where they are needed only.
ENV CAUSEWAY_LISTEN=0.0.0.0:6432 CAUSEWAY_ADMIN=0.0.0.0:6480
EXPOSE 6432 6480
ENTRYPOINT ["causeway"]
CMD ["serve"]
