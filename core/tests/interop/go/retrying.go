package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const retryMax = 60 * time.Second

type verdict func(context.Context, *primitive.MessageExt) consumer.ConsumeResult

func (w *world) judgingConsumer(group, topic string, judge verdict, options ...consumer.Option) error {
	c, err := rocketmq.NewPushConsumer(w.consumerOptions(group, options)...)
	if err != nil {
		return err
	}
	w.onClose(c.Shutdown)
	err = c.Subscribe(topic, everything(), func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		return judge(ctx, messages[0]), nil
	})
	if err != nil {
		return err
	}
	return c.Start()
}

// Each comes again after its delay, counted, as often as the group allows; then it is a dead letter.
func retryRetry(w *world) (string, error) {
	const retries = 2
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	group := w.name("group")
	seen := newInbox()
	err = w.judgingConsumer(group, d.topic, func(ctx context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		seen.take(m)
		if c, ok := primitive.GetConcurrentlyCtx(ctx); ok {
			// A second.
			c.DelayLevelWhenNextConsume = 1
		}
		key := strings.TrimSpace(m.GetKeys())
		if strings.HasPrefix(key, "good") || strings.HasPrefix(key, "once") && m.ReconsumeTimes > 0 {
			return consumer.ConsumeSuccess
		}
		return consumer.ConsumeRetryLater
	}, consumer.WithMaxReconsumeTimes(retries))
	if err != nil {
		return "", err
	}
	times := map[string]int{"bad": retries + 1, "once": 2, "good": 1}
	dead := []string{}
	for kind := range times {
		for i := 0; i < 5; i++ {
			key := fmt.Sprintf("%s-%d", kind, i)
			if kind == "bad" {
				dead = append(dead, key)
			}
			if _, err := d.producer.SendSync(context.Background(), d.message(key)); err != nil {
				return "", err
			}
		}
	}
	for kind, n := range times {
		for i := 0; i < 5; i++ {
			key := fmt.Sprintf("%s-%d", kind, i)
			if err := seen.await([]string{key}, n, retryMax); err != nil {
				return "", err
			}
			for nth, came := range seen.of(key) {
				if int(came.message.ReconsumeTimes) != nth || came.message.Topic != d.topic {
					return "", fmt.Errorf("arrival %d of %s: %v", nth, key, came.message)
				}
				if nth > 0 && came.at.Sub(seen.of(key)[nth-1].at) < 900*time.Millisecond {
					return "", fmt.Errorf("%s came again after %v", key, came.at.Sub(seen.of(key)[nth-1].at))
				}
			}
		}
	}
	found, err := w.collect("%DLQ%"+group, dead)
	if err != nil {
		return "", err
	}
	time.Sleep(2 * time.Second)
	for kind, n := range times {
		for i := 0; i < 5; i++ {
			if key := fmt.Sprintf("%s-%d", kind, i); len(seen.of(key)) != n {
				return "", fmt.Errorf("%s came %d times, not %d", key, len(seen.of(key)), n)
			}
		}
	}
	return fmt.Sprintf("%d messages came %d times and are dead letters", len(dead), retries+1), found.checkExactly(dead, 1)
}

// Everything that there is in a topic which may not exist yet, until the keys have come.
func (w *world) collect(topic string, keys []string) (*inbox, error) {
	if err := w.awaitTopic(topic); err != nil {
		return nil, err
	}
	found := newInbox()
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), found.take); err != nil {
		return nil, err
	}
	return found, found.await(keys, 1, retryMax)
}

// In order: the queue is held up meanwhile; after so many attempts its message is a dead letter and the next comes.
func retryOrderly(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, queues, err := w.topic()
	if err != nil {
		return "", err
	}
	keys := []string{"a", "bad", "b", "c"}
	for _, key := range keys {
		m := primitive.NewMessage(topic, payloadOf(key)).WithKeys([]string{key})
		m.Queue = queues[0]
		if _, err := p.SendSync(context.Background(), m); err != nil {
			return "", err
		}
	}
	var mutex sync.Mutex
	came := []string{}
	group := w.name("group")
	err = w.judgingConsumer(group, topic, func(ctx context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		if c, ok := primitive.GetOrderlyCtx(ctx); ok {
			c.SuspendCurrentQueueTimeMillis = 300
		}
		key := strings.TrimSpace(m.GetKeys())
		mutex.Lock()
		defer mutex.Unlock()
		came = append(came, fmt.Sprintf("%s%d", key, m.ReconsumeTimes))
		if key == "bad" {
			return consumer.SuspendCurrentQueueAMoment
		}
		return consumer.ConsumeSuccess
	}, consumer.WithMaxReconsumeTimes(1), consumer.WithConsumerOrder(true), consumer.WithConsumeMessageBatchMaxSize(1))
	if err != nil {
		return "", err
	}
	// The client counts one attempt more than its option says.
	wanted := "[a0 bad0 bad1 bad2 b0 c0]"
	list := func() string {
		mutex.Lock()
		defer mutex.Unlock()
		return fmt.Sprint(came)
	}
	if err := within(retryMax, func() bool { return len(list()) >= len(wanted) }, list); err != nil {
		return "", err
	}
	if list() != wanted {
		return "", fmt.Errorf("came %s, not %s", list(), wanted)
	}
	found, err := w.collect("%DLQ%"+group, []string{"bad"})
	if err != nil {
		return "", err
	}
	return "in order " + wanted, found.checkExactly([]string{"bad"}, 1)
}

// The answer comes back to the very producer that asked.
func requestReply(w *world) (string, error) {
	const calls = 30
	answerer, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	failures := make(chan error, calls*2)
	_, err = w.pushConsumer(w.name("group"), topic, everything(), func(m *primitive.MessageExt) {
		if strings.TrimSpace(m.GetKeys()) == "hello" {
			return
		}
		reply, err := consumer.CreateReplyMessage(m, nil)
		if err == nil {
			reply.Body = []byte("answer to " + strings.TrimSpace(m.GetKeys()))
			_, err = answerer.SendSync(context.Background(), reply)
		}
		if err != nil {
			failures <- err
		}
	})
	if err != nil {
		return "", err
	}
	asker, err := w.producer()
	if err != nil {
		return "", err
	}
	// A broker knows a producer from its heartbeat. The first goes out a second after the start, to the brokers of the
	// topics sent to by then; the next half a minute later.
	if _, err := asker.SendSync(context.Background(), primitive.NewMessage(topic, payloadOf("hello")).WithKeys([]string{"hello"})); err != nil {
		return "", err
	}
	time.Sleep(3 * time.Second)
	for i := 0; i < calls; i++ {
		key := fmt.Sprintf("call-%d", i)
		answer, err := asker.Request(context.Background(), 20*time.Second, primitive.NewMessage(topic, payloadOf(key)).WithKeys([]string{key}))
		if err != nil {
			select {
			case failure := <-failures:
				return "", fmt.Errorf("%w; the reply: %v", err, failure)
			default:
				return "", err
			}
		}
		if string(answer.Body) != "answer to "+key {
			return "", fmt.Errorf("answer to %s: %q", key, answer.Body)
		}
	}
	answers := make(chan string, calls)
	for i := 0; i < calls; i++ {
		key := fmt.Sprintf("async-%d", i)
		err := asker.RequestAsync(context.Background(), 20*time.Second, func(_ context.Context, m *primitive.Message, err error) {
			if err != nil {
				answers <- err.Error()
			} else {
				answers <- string(m.Body)
			}
		}, primitive.NewMessage(topic, payloadOf(key)).WithKeys([]string{key}))
		if err != nil {
			return "", err
		}
	}
	for i := 0; i < calls; i++ {
		select {
		case answer := <-answers:
			if !strings.HasPrefix(answer, "answer to async-") {
				return "", fmt.Errorf("answer: %s", answer)
			}
		case err := <-failures:
			return "", err
		case <-time.After(25 * time.Second):
			return "", fmt.Errorf("%d of %d answers", i, calls)
		}
	}
	return fmt.Sprintf("%d calls and %d with a callback answered", calls, calls), nil
}

// The hooks of a producer and a consumer leave their traces.
func traceHooks(w *world) (string, error) {
	config := func() *primitive.TraceConfig {
		return &primitive.TraceConfig{Access: primitive.Local, Resolver: primitive.NewPassthroughResolver(w.namesrv), GroupName: w.name("tracer")}
	}
	traces := make(chan string, 10_000)
	came := newInbox()
	p, err := w.producer(producer.WithTrace(config()))
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), came.take, consumer.WithTrace(config())); err != nil {
		return "", err
	}
	sent, err := p.SendSync(context.Background(), primitive.NewMessage(topic, payloadOf("traced")).WithKeys([]string{"traced"}))
	if err != nil {
		return "", err
	}
	if err := came.await([]string{"traced"}, 1, retryMax); err != nil {
		return "", err
	}
	if err := w.awaitTopic("RMQ_SYS_TRACE_TOPIC"); err != nil {
		return "", err
	}
	_, err = w.pushConsumer(w.name("group"), "RMQ_SYS_TRACE_TOPIC", everything(), func(m *primitive.MessageExt) {
		if strings.Contains(string(m.Body), sent.MsgID) {
			traces <- string(m.Body)
		}
	})
	if err != nil {
		return "", err
	}
	missing := map[string]bool{"Pub\x01": true, "SubBefore\x01": true, "SubAfter\x01": true}
	deadline := time.After(retryMax)
	for len(missing) > 0 {
		select {
		case text := <-traces:
			for kind := range missing {
				if strings.Contains(text, kind) {
					delete(missing, kind)
				}
			}
		case <-deadline:
			return "", fmt.Errorf("no trace of kinds %v", missing)
		}
	}
	return "sent, taken and done", nil
}

func (w *world) awaitTopic(topic string) error {
	return within(retryMax, func() bool {
		a, err := w.admin()
		if err != nil {
			return false
		}
		queues, err := a.FetchPublishMessageQueues(context.Background(), topic)
		time.Sleep(100 * time.Millisecond)
		return err == nil && len(queues) > 0
	}, func() string { return "no route of " + topic })
}

// Of two NameServers one is dead.
func namesrvList(w *world) (string, error) {
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	dead := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", err
	}
	p, err := w.producer(producer.WithNameServer(primitive.NamesrvAddr{dead, w.namesrv[0]}))
	if err != nil {
		return "", err
	}
	for i := 0; i < 10; i++ {
		if _, err := p.SendSync(context.Background(), primitive.NewMessage(topic, []byte("any"))); err != nil {
			return "", err
		}
	}
	return "sent by way of the other", nil
}

// A topic can be removed, and is gone.
func adminRemove(w *world) (string, error) {
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	brokers, err := w.brokerAddresses()
	if err != nil {
		return "", err
	}
	a, err := w.admin()
	if err != nil {
		return "", err
	}
	for _, address := range brokers {
		err := a.DeleteTopic(context.Background(), admin.WithTopicDelete(topic), admin.WithBrokerAddrDelete(address),
			admin.WithNameSrvAddr(w.namesrv))
		if err != nil {
			return "", err
		}
	}
	var list *admin.TopicList
	gone := func() bool {
		list, err = a.FetchAllTopicList(context.Background())
		if err != nil {
			return false
		}
		for _, name := range list.TopicList {
			if name == topic {
				return false
			}
		}
		return true
	}
	if err := within(retryMax, gone, func() string { return "the topic is still there" }); err != nil {
		return "", err
	}
	return fmt.Sprintf("removed from %d brokers and the NameServer", len(brokers)), nil
}

// What is too large is refused with RocketMQ's code; what is just within the limit is stored.
func sendLimits(w *world) (string, error) {
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	p, err := w.producer(producer.WithCompressMsgBodyOverHowmuch(2 * bodyMax))
	if err != nil {
		return "", err
	}
	wordy := primitive.NewMessage(topic, []byte("any"))
	wordy.WithProperty("long", strings.Repeat("x", 32_767))
	for what, m := range map[string]*primitive.Message{
		"a body above the limit":     primitive.NewMessage(topic, payload("large", bodyMax+1024)),
		"properties above the limit": wordy,
	} {
		sent, err := p.SendSync(context.Background(), m)
		if err == nil {
			return "", fmt.Errorf("%s: taken: %v", what, sent)
		}
		if !strings.Contains(err.Error(), "13") {
			return "", fmt.Errorf("%s: %w", what, err)
		}
	}
	almost := primitive.NewMessage(topic, []byte("any"))
	almost.WithProperty("long", strings.Repeat("x", 32_000))
	_, err = p.SendSync(context.Background(), almost)
	return "a body and properties refused with code 13", err
}
