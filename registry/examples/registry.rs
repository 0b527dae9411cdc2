//! Serves a registry in plaintext on the URL that is its argument.

use std::error::Error;

use carrick_grpc::{Security, Url, listen};
use carrick_registry::{Server, ServerOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:5001".into());
    let url: Url = url.parse()?;
    let registry = Server::start(ServerOptions::default())?;
    let listener = listen(&url, &Security::insecure()).await?;
    println!("serving on {}", listener.url());
    let server = tonic::transport::Server::builder().add_routes(registry.routes());
    Ok(server.serve_with_incoming(listener).await?)
}
