# For people who have `just`; nothing needs it. `.ci/run` runs the same commands.
check:
    cargo clippy --workspace --all-targets -- -D warnings
test:
    cargo test --workspace
demo:
    cargo run --release --bin privity-demo
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
deny:
    cargo deny check
long:
    .ci/run --long
