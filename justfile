# `just` lists the recipes; CI runs the same ones.

default:
    @just --list

fmt:
    cargo fmt --all

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

test:
    cargo test --locked

# Needs network namespaces: root, or user namespaces.
test-netns:
    scripts/test.sh netns

charts:
    scripts/test.sh charts

interop:
    scripts/interop.sh

demo:
    cargo run --release --locked -- demo

deny:
    cargo deny check

generate:
    cargo run -p carrick-proto --example generate
