//! TLS from the client's side, against a server that is rustls and blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apogee_net::client::{CallError, ConnectError, ConnectOptions, RemotingClient};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, append_reply};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, NoExt};
use apogee_net::io::{Chunk, Driver, DriverConfig};
use apogee_net::tls::{HandshakeError, Identity, TlsClient, TlsFileError, TlsOptions, Trust};
use bytes::{Bytes, BytesMut};
use glommio::LocalExecutorBuilder;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const WITHIN: Duration = Duration::from_secs(5);

/// An authority and a certificate of its own for a server and a client.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: tempfile::tempdir().unwrap() };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate and its key, both signed and in PEM files.
    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>, Identity) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            certificate: self.write(&format!("{name}.pem"), &certificate.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (certificate.der().clone(), key, identity)
    }

    /// An echo with a certificate for "broker"; with `wants_client`, only for clients of this authority.
    fn serve(
        &self,
        wants_client: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key, _) = self.issue("broker");
        let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let session = ServerConnection::new(config.clone()).unwrap();
                let stream = StreamOwned::new(session, socket.unwrap());
                std::thread::spawn(move || echo(stream));
            }
        });
        address
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
/// Closes the connection instead of answering.
const HANG_UP: RequestCode = RequestCode(13);

/// Answers each frame with its own body until the peer leaves or an error ends it.
fn echo(mut stream: impl Read + Write) {
    let mut received = BytesMut::new();
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..count]);
        let mut replies = BytesMut::new();
        while let Some(frame) = split_frame(&mut received).unwrap() {
            let header = Header::decode(frame.encoding, &frame.header).unwrap();
            if RequestCode(header.code) == HANG_UP {
                return;
            }
            let head =
                ReplyHead { code: ResponseCode::SUCCESS, opaque: header.opaque, remark: None, ext: &NoExt };
            append_reply(&mut replies, frame.encoding, &head, &frame.body).unwrap();
        }
        if stream.write_all(&replies).is_err() {
            return;
        }
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let executor = LocalExecutorBuilder::default().spawn(|| async move {
        Driver::start(DriverConfig::default());
        test().await;
    });
    executor.unwrap().join().unwrap();
}

fn options(tls: &TlsOptions) -> ConnectOptions {
    ConnectOptions { tls: Some(TlsClient::new(tls).unwrap()), ..ConnectOptions::within(WITHIN) }
}

fn trusting(ca_file: PathBuf) -> TlsOptions {
    TlsOptions { trust: Trust::CaFile(ca_file), ..TlsOptions::default() }
}

async fn refusal(address: SocketAddr, tls: TlsOptions) -> HandshakeError {
    match RemotingClient::connect(address, &options(&tls)).await {
        Err(ConnectError::Tls(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn body(len: usize, seed: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + seed) as u8).collect::<Vec<_>>().into()
}

async fn echoes_all(address: SocketAddr, tls: &TlsOptions) {
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        let options = ConnectOptions { encoding, ..options(tls) };
        let client = RemotingClient::connect(address, &options).await.unwrap();
        for len in [0, 1, 4095, 16_384, 65_536, 1 << 20, 8 << 20] {
            let sent = body(len, len);
            let reply =
                client.call(RequestCode(1), &NoExt, [Chunk::from(sent.clone())], WITHIN).await.unwrap();
            assert!(*reply.body() == sent, "{len} bytes");
        }
        let calls: Vec<_> = (0..5000)
            .map(|i| client.call(RequestCode(1), &NoExt, [Chunk::from(body(700, i))], WITHIN))
            .collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(*call.await.unwrap().body(), body(700, i));
        }
    }
}

#[test]
fn bodies_of_all_sizes_come_back_in_both_versions() {
    let authority = Authority::new("own");
    let servers = [&rustls::version::TLS12, &rustls::version::TLS13].map(|v| authority.serve(false, &[v]));
    let named = TlsOptions { server_name: Some("broker".into()), ..trusting(authority.ca_file()) };
    run(move || async move {
        for server in servers {
            echoes_all(server, &named).await;
        }
    });
}

#[test]
fn anyone_is_believed_unless_told_otherwise() {
    let server = Authority::new("server's");
    let address = server.serve(false, BOTH);
    run(move || async move {
        let client = RemotingClient::connect(address, &options(&TlsOptions::default())).await.unwrap();
        client.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
        // Another authority of the same name is another authority.
        for name in ["other", "server's"] {
            let other = Authority::new(name);
            let error = refusal(address, trusting(other.ca_file())).await;
            let ca_file = other.ca_file();
            let expected =
                format!("the server's certificate is not signed by any certificate in {}", ca_file.display());
            assert_eq!(error.to_string(), expected);
        }
    });
}

#[test]
fn a_name_counts_only_if_one_is_expected() {
    let authority = Authority::new("own");
    let address = authority.serve(false, BOTH);
    run(move || async move {
        // The certificate is for "broker", the address is 127.0.0.1.
        let any_name = trusting(authority.ca_file());
        RemotingClient::connect(address, &options(&any_name)).await.unwrap();
        let error = refusal(address, TlsOptions { server_name: Some("other".into()), ..any_name }).await;
        assert!(matches!(&error, HandshakeError::WrongName { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("broker") && text.ends_with("expected other"), "{text}");
    });
}

#[test]
fn a_client_shows_its_certificate_where_one_is_wanted() {
    let authority = Authority::new("own");
    let stranger = Authority::new("stranger");
    let servers = [&rustls::version::TLS12, &rustls::version::TLS13].map(|v| authority.serve(true, &[v]));
    run(move || async move {
        let none = trusting(authority.ca_file());
        let own = TlsOptions { identity: Some(authority.issue("client").2), ..none.clone() };
        let strange = TlsOptions { identity: Some(stranger.issue("client").2), ..none.clone() };
        for server in servers {
            let client = RemotingClient::connect(server, &options(&own)).await.unwrap();
            client.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
            for refused in [&none, &strange] {
                // With TLS 1.3 the client is through before the server has looked at it.
                let said = match RemotingClient::connect(server, &options(refused)).await {
                    Err(error) => error.to_string(),
                    Ok(client) => {
                        let call = client.call(RequestCode(1), &NoExt, [], WITHIN);
                        assert_eq!(call.await.unwrap_err(), CallError::Closed);
                        client.fault().expect("the server said why")
                    }
                };
                assert!(said.contains("the server"), "{said}");
            }
        }
    });
}

#[test]
fn a_server_without_tls_is_told_apart() {
    fn server(act: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(|socket| act(socket.unwrap())));
        address
    }
    // A broker finds the hello's length field too long and closes.
    let closes = server(|mut socket| drop(socket.read(&mut [0; 16])));
    let speaks = server(|mut socket| {
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let silent = server(std::mem::forget);
    run(move || async move {
        let error = refusal(closes, TlsOptions::default()).await;
        assert_eq!(error, HandshakeError::ClosedByPeer);
        let error = refusal(speaks, TlsOptions::default()).await;
        assert_eq!(error, HandshakeError::NotTls { found: b'H' });
        let within = Duration::from_millis(200);
        let options = ConnectOptions { timeout: within, ..options(&TlsOptions::default()) };
        let error = RemotingClient::connect(silent, &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoHandshake(_)), "{error}");
    });
}

#[test]
fn a_connection_that_ends_ends_its_calls() {
    let authority = Authority::new("own");
    let address = authority.serve(false, BOTH);
    run(move || async move {
        let client = RemotingClient::connect(address, &options(&TlsOptions::default())).await.unwrap();
        let call = client.call(HANG_UP, &NoExt, [], WITHIN).await;
        assert_eq!(call.unwrap_err(), CallError::Closed);
        assert!(client.is_closed());
    });
}

#[test]
fn files_that_will_not_do_are_named() {
    let authority = Authority::new("own");
    let (_, _, identity) = authority.issue("client");
    let (_, _, other) = authority.issue("other");
    let said = |options: TlsOptions| TlsClient::new(&options).unwrap_err().to_string();
    let with = |certificate: &PathBuf, key: &PathBuf| TlsOptions {
        identity: Some(Identity { certificate: certificate.clone(), key: key.clone() }),
        ..TlsOptions::default()
    };
    let absent = authority.folder.path().join("absent.pem");
    let empty = authority.write("empty.pem", "nothing here\n");
    let encrypted = authority.write(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");

    assert!(said(trusting(absent.clone())).starts_with(&format!("cannot read {}: ", absent.display())));
    assert!(said(trusting(empty.clone())).starts_with(&format!("no certificate in {}", empty.display())));
    assert!(said(trusting(broken.clone())).starts_with(&format!("{} is no PEM file", broken.display())));
    assert!(said(with(&identity.certificate, &empty)).starts_with("no private key in"));
    assert!(said(with(&identity.certificate, &encrypted)).contains("is encrypted"));
    assert!(said(with(&identity.certificate, &other.key)).contains("cannot be used together"));
    let wrong_name = TlsOptions { server_name: Some("no name".into()), ..TlsOptions::default() };
    assert!(matches!(TlsClient::new(&wrong_name), Err(TlsFileError::ServerName { .. })));
}
