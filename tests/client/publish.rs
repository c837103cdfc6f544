//! Publishing and its receipts.

use std::time::Duration;

use fanfare::client::PublishError;
use fanfare::{Broadcast, Broker, Event, EventId};

use crate::scripted::{Answer, Scripted, plain, status};
use crate::support::serve;
use crate::{client, to};

#[actix_web::test]
async fn a_publish_has_its_receipt() {
    let server = serve(Broker::builder());
    let client = client(&server);
    let mine = Event::text("x", "y").expect("valid").id(EventId::new("mine").expect("valid"));
    let mine = Broadcast::channel("a", mine).expect("valid");
    let first = client.publish(&mine).await.expect("committed");
    assert_eq!((first.id.as_str(), first.seq, first.duplicate), ("mine", Some(1), false));
    assert!(first.position.is_some());
    let again = client.publish(&mine).await.expect("committed");
    assert!(again.duplicate);
    assert_eq!((again.seq, again.position), (first.seq, first.position));
    let ephemeral = Broadcast::everyone(Event::text("x", "y").expect("valid").ephemeral());
    let ephemeral = client.publish(&ephemeral).await.expect("sent");
    assert_eq!((ephemeral.seq, ephemeral.position), (None, None));
    let all = client.publish_all(&[to("a", "1"), to("a", "2")]).await.expect("committed");
    assert_eq!(all.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [Some(2), Some(3)]);
}

#[actix_web::test]
async fn a_publish_that_is_refused_says_why() {
    let server = serve(Broker::builder());
    let client = client(&server);
    let refused = |error| match error {
        PublishError::Rejected(problem) => problem,
        other => panic!("{other}"),
    };
    let nobody = Broadcast::sessions([], Event::text("x", "y").expect("valid"));
    let problem = refused(client.publish_all(&[to("a", "1"), nobody]).await.expect_err("refused"));
    assert_eq!((problem.status, problem.index, problem.is_temporary()), (400, Some(1), false), "{problem}");
    let problem = refused(client.publish_all(&[]).await.expect_err("refused"));
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("batch")));
    let large: Vec<_> = (0..6).map(|_| to("a", "x".repeat(200_000))).collect();
    let problem = refused(client.publish_all(&large).await.expect_err("refused"));
    assert_eq!((problem.status, problem.field.as_deref()), (413, Some("body")));
    assert_eq!(server.stats().await.head, 0);

    let busy = Scripted::start([status("503 x", "retry-after: 2\r\n", "busy")]).await;
    let problem = refused(busy.client().publish(&to("a", "1")).await.expect_err("refused"));
    assert!(problem.is_temporary());
    assert_eq!((problem.status, problem.retry_after), (503, Some(Duration::from_secs(2))));
}

#[actix_web::test]
async fn a_publish_without_an_answer_is_in_doubt() {
    let nothing = plain("").held();
    let silent = Scripted::start([nothing.clone()]).await;
    let client = silent.client().publish_timeout(Duration::from_millis(100));
    let error = client.publish(&to("a", "1")).await.expect_err("no answer");
    assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
    let cut = Scripted::start([Answer { is_held: false, ..nothing }]).await;
    let error = cut.client().publish(&to("a", "1")).await.expect_err("no answer");
    assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
    let strange = Scripted::start([status("200 OK", "content-type: application/json\r\n", "{}")]).await;
    let error = strange.client().publish(&to("a", "1")).await.expect_err("no receipt");
    assert!(matches!(error, PublishError::Malformed(_)), "{error}");
}
