use super::*;
use std::net::Ipv4Addr;
use tokio::task::JoinHandle;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_schedule_keeps_the_distance_and_the_order() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start + 80 * MS);
    // (read at, half a round trip, due), all after the accept, in milliseconds
    for (now, half, due) in [
        (0, 40, 120),  // sent with the connection: the handshake and half a round trip
        (1, 40, 120),  // order, not a queue of delays
        (90, 40, 130), // from here on half a round trip each
        (91, 40, 131),
        (100, 10, 131), // a shorter distance does not let chunks overtake
        (200, 10, 210),
        (201, 0, 210),
        (300, 0, 300),
    ] {
        assert_eq!(
            schedule.due(start + now * MS, half * MS),
            start + due * MS,
            "read at {now} ms"
        );
    }
}

/// A server that sends back what it gets.
async fn echo_server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap_or(0)
            });
        }
    });
    (address, task)
}

/// The network comes along since the link ends with it.
async fn link_to(target: SocketAddr, round_trip: Duration) -> (Link, TcpStream, Network) {
    let network = Network::new().unwrap();
    let link = network.link(target, round_trip).unwrap();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))
        .await
        .unwrap();
    (link, client, network)
}

async fn echo(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
}

#[tokio::test]
async fn a_round_trip_is_never_shorter_than_asked_for() {
    let (target, _server) = echo_server().await;
    let begun = Instant::now();
    let (_link, mut client, _network) = link_to(target, 30 * MS).await;
    echo(&mut client, b"first").await;
    assert!(begun.elapsed() >= 60 * MS, "the handshake costs one more");
    for _ in 0..3 {
        let begun = Instant::now();
        echo(&mut client, b"next").await;
        assert!(begun.elapsed() >= 30 * MS);
    }
}

#[tokio::test]
async fn many_chunks_arrive_whole_and_in_order_and_the_end_arrives_last() {
    let (target, _server) = echo_server().await;
    let (_link, mut client, _network) = link_to(target, 5 * MS).await;
    let sent: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let expected = sent.clone();
    let (mut read, mut write) = client.split();
    let send = async {
        for part in sent.chunks(10_007) {
            write.write_all(part).await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, received) = tokio::join!(send, read.read_to_end(&mut back));
    assert_eq!(received.unwrap(), expected.len());
    assert!(back == expected);
}

#[tokio::test]
async fn a_frozen_link_delivers_everything_once_it_is_restored() {
    let (target, _server) = echo_server().await;
    let (link, mut client, _network) = link_to(target, 2 * MS).await;
    echo(&mut client, b"before").await;

    link.cut(Cut::Freeze);
    client.write_all(b"during").await.unwrap();
    let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))
        .await
        .unwrap();
    late.write_all(b"late").await.unwrap();
    let mut back = [0; 6];
    let early = tokio::time::timeout(50 * MS, client.read_exact(&mut back)).await;
    assert!(early.is_err(), "a frozen link lets nothing through");

    link.restore();
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"during");
    late.read_exact(&mut back[..4]).await.unwrap();
    assert_eq!(&back[..4], b"late");
}

#[tokio::test]
async fn a_reset_link_breaks_connections_until_it_is_restored() {
    let (target, _server) = echo_server().await;
    let (link, mut client, _network) = link_to(target, Duration::ZERO).await;
    echo(&mut client, b"before").await;

    link.cut(Cut::Reset);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The reset can come while the connection is being made, or after.
    let late = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).await;
    if let Ok(mut late) = late {
        assert!(late.read_u8().await.is_err());
    }

    link.restore();
    let mut again = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))
        .await
        .unwrap();
    echo(&mut again, b"after").await;
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere_takes_new_connections_there() {
    let (first, _server) = echo_server().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (link, mut client, _network) = link_to(first, Duration::ZERO).await;
    echo(&mut client, b"before").await;

    link.point_at(listener.local_addr().unwrap(), Duration::ZERO);
    assert!(client.read_u8().await.is_err());
    let _again = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))
        .await
        .unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn what_a_frozen_link_holds_does_not_arrive_once_it_leads_elsewhere() {
    let (first, _server) = echo_server().await;
    let (elsewhere, _other) = echo_server().await;
    let (link, mut client, _network) = link_to(first, Duration::ZERO).await;
    echo(&mut client, b"before").await;

    link.cut(Cut::Freeze);
    client.write_all(b"during").await.unwrap();
    link.point_at(elsewhere, Duration::ZERO);
    link.restore();
    assert!(client.read_u8().await.is_err());
}
