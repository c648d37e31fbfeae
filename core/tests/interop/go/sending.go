package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const (
	messages      = 20_000
	syncSenders   = 8
	asyncInFlight = 1_000
	batchMessages = 100
	deliveryMax   = 60 * time.Second
	// The broker's default limit, which the client does not know.
	bodyMax = 4 << 20
)

// A producer, a topic and a consumer that keeps the ledger.
type bench struct {
	producer  rocketmq.Producer
	topic     string
	queues    []*primitive.MessageQueue
	ledger    *ledger
	positions positions
	begun     time.Time
}

func newBench(w *world) (*bench, error) {
	p, err := w.producer()
	if err != nil {
		return nil, err
	}
	topic, queues, err := w.topic()
	if err != nil {
		return nil, err
	}
	b := &bench{producer: p, topic: topic, queues: queues, ledger: newLedger(topic), begun: time.Now()}
	_, err = w.pushConsumer(w.name("group"), topic, everything(), b.ledger.receive)
	return b, err
}

func (b *bench) owe(prefix string) []*primitive.Message {
	all := make([]*primitive.Message, messages)
	for i := range all {
		all[i] = b.ledger.owe(fmt.Sprintf("%s-%d", prefix, i))
	}
	return all
}

func (b *bench) finish() (string, error) {
	seconds := time.Since(b.begun).Seconds()
	if err := b.positions.checkContiguous(messages); err != nil {
		return "", err
	}
	if err := b.ledger.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d sent to %d queues in %.1f s, each received once", messages, len(b.positions.taken), seconds), nil
}

func sendSync(w *world) (string, error) {
	b, err := newBench(w)
	if err != nil {
		return "", err
	}
	all := b.owe("sync")
	failures := make(chan error, syncSenders)
	for s := 0; s < syncSenders; s++ {
		go func(first int) {
			for i := first; i < messages; i += syncSenders {
				sent, err := b.producer.SendSync(context.Background(), all[i])
				if err == nil {
					err = b.positions.add(sent, 1)
				}
				if err != nil {
					failures <- err
					return
				}
			}
			failures <- nil
		}(s)
	}
	for s := 0; s < syncSenders; s++ {
		if err := <-failures; err != nil {
			return "", err
		}
	}
	return b.finish()
}

func sendAsync(w *world) (string, error) {
	b, err := newBench(w)
	if err != nil {
		return "", err
	}
	all := b.owe("async")
	inFlight := make(chan struct{}, asyncInFlight)
	var answers sync.WaitGroup
	var mutex sync.Mutex
	var failures []error
	for _, message := range all {
		inFlight <- struct{}{}
		answers.Add(1)
		err := b.producer.SendAsync(context.Background(), func(_ context.Context, sent *primitive.SendResult, err error) {
			if err == nil {
				err = b.positions.add(sent, 1)
			}
			if err != nil {
				mutex.Lock()
				failures = append(failures, err)
				mutex.Unlock()
			}
			<-inFlight
			answers.Done()
		}, message)
		if err != nil {
			return "", err
		}
	}
	answers.Wait()
	if len(failures) > 0 {
		return "", fmt.Errorf("%d sends failed, such as: %w", len(failures), failures[0])
	}
	return b.finish()
}

// Nobody promises that a oneway message is stored; on an idle loopback nothing excuses a loss either.
func sendOneway(w *world) (string, error) {
	b, err := newBench(w)
	if err != nil {
		return "", err
	}
	for _, message := range b.owe("oneway") {
		if err := b.producer.SendOneWay(context.Background(), message); err != nil {
			return "", err
		}
	}
	if err := b.ledger.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	received, _ := b.ledger.counts()
	return fmt.Sprintf("%d sent, %d received", messages, received), nil
}

func sendBatch(w *world) (string, error) {
	b, err := newBench(w)
	if err != nil {
		return "", err
	}
	all := b.owe("batch")
	for i := 0; i < messages; i += batchMessages {
		sent, err := b.producer.SendSync(context.Background(), all[i:i+batchMessages]...)
		if err != nil {
			return "", err
		}
		if err := b.positions.add(sent, batchMessages); err != nil {
			return "", err
		}
	}
	return b.finish()
}

// Bodies up to the limit of 4 MiB, and pulls that would not fit into a frame if they were filled up by count.
func sendLarge(w *world) (string, error) {
	b, err := newBench(w)
	if err != nil {
		return "", err
	}
	// Noise does not get smaller: compressed, a body of the limit's size would be above it.
	plain, err := w.producer(producer.WithCompressMsgBodyOverHowmuch(bodyMax + 1))
	if err != nil {
		return "", err
	}
	sizes := []int{bodyMax - 1024, bodyMax, 4096, 1 << 16, bodyMax - 1}
	for i := 0; i < 24; i++ {
		sizes = append(sizes, 1<<20)
	}
	for i, size := range sizes {
		key := fmt.Sprintf("large-%d", i)
		b.ledger.owe(key)
		message := primitive.NewMessage(b.topic, payload(key, size)).WithKeys([]string{key})
		message.Queue = b.queues[0]
		if _, err := plain.SendSync(context.Background(), message); err != nil {
			return "", fmt.Errorf("%d bytes: %w", size, err)
		}
	}
	if err := b.ledger.awaitExactly(deliveryMax); err != nil {
		return "", err
	}

	// Compressed by the client, and handed out as it came.
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	text := bytes.Repeat([]byte("what repeats gets small. "), 150_000)
	unpacked := make(chan []byte, 10)
	_, err = w.pushConsumer(w.name("group"), topic, everything(), func(m *primitive.MessageExt) { unpacked <- m.Body })
	if err != nil {
		return "", err
	}
	if _, err := b.producer.SendSync(context.Background(), primitive.NewMessage(topic, text)); err != nil {
		return "", err
	}
	select {
	case body := <-unpacked:
		if !bytes.Equal(body, text) {
			return "", fmt.Errorf("a compressed body came back different")
		}
	case <-time.After(deliveryMax):
		return "", fmt.Errorf("a compressed body did not come")
	}
	return fmt.Sprintf("%d bodies up to %d bytes and a compressed one of %d", len(sizes), bodyMax, len(text)), nil
}

// What a consumer sees of a message is what its producer gave it, alone or in a batch.
func sendProperties(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	received := make(chan *primitive.MessageExt, 100)
	_, err = w.pushConsumer(w.name("group"), topic, everything(), func(m *primitive.MessageExt) { received <- m })
	if err != nil {
		return "", err
	}
	brokers, err := w.brokerAddresses()
	if err != nil {
		return "", err
	}

	message, wanted := decorated(topic, "alone")
	before := time.Now().UnixMilli()
	sent, err := p.SendSync(context.Background(), message)
	if err != nil {
		return "", err
	}
	came, err := take(received)
	if err != nil {
		return "", err
	}
	after := time.Now().UnixMilli()
	if err := checkSame(message, wanted, came); err != nil {
		return "", err
	}
	switch {
	case came.MsgId != sent.MsgID:
		return "", fmt.Errorf("unique id %s came as %s", sent.MsgID, came.MsgId)
	case came.QueueOffset != sent.QueueOffset || *came.Queue != *sent.MessageQueue:
		return "", fmt.Errorf("sent to %v offset %d, came from %s", sent.MessageQueue, sent.QueueOffset, place(came))
	case came.BornTimestamp < before || came.BornTimestamp > after:
		return "", fmt.Errorf("born at %d, not within %d to %d", came.BornTimestamp, before, after)
	case came.StoreTimestamp < before || came.StoreTimestamp > after:
		return "", fmt.Errorf("stored at %d, not within %d to %d", came.StoreTimestamp, before, after)
	case !strings.HasPrefix(came.BornHost, "127.0.0.1:"):
		return "", fmt.Errorf("born host %s", came.BornHost)
	case came.StoreHost != brokers[came.Queue.BrokerName]:
		return "", fmt.Errorf("store host %s, the broker is at %s", came.StoreHost, brokers[came.Queue.BrokerName])
	}

	batch := []*primitive.Message{}
	wantedOf := map[string]map[string]string{}
	for _, name := range []string{"first", "second", "third"} {
		part, properties := decorated(topic, name)
		batch = append(batch, part)
		wantedOf[part.GetKeys()] = properties
	}
	sent, err = p.SendSync(context.Background(), batch...)
	if err != nil {
		return "", err
	}
	partOf := map[string]*primitive.MessageExt{}
	for range batch {
		part, err := take(received)
		if err != nil {
			return "", err
		}
		partOf[part.GetKeys()] = part
	}
	for i, one := range batch {
		part := partOf[one.GetKeys()]
		if part == nil {
			return "", fmt.Errorf("no part with keys %q", one.GetKeys())
		}
		if err := checkSame(one, wantedOf[one.GetKeys()], part); err != nil {
			return "", err
		}
		if part.QueueOffset != sent.QueueOffset+int64(i) {
			return "", fmt.Errorf("part %d of a batch at %d came from offset %d", i, sent.QueueOffset, part.QueueOffset)
		}
	}

	if _, err := p.SendSync(context.Background(), primitive.NewMessage(topic, []byte{42})); err != nil {
		return "", err
	}
	plain, err := take(received)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(plain.Body, []byte{42}) || plain.GetKeys() != "" || plain.GetTags() != "" {
		return "", fmt.Errorf("a message of one byte came as %v", plain)
	}
	return "alone, in a batch, and without any", nil
}

// A message and what its consumer must find in it.
func decorated(topic, name string) (*primitive.Message, map[string]string) {
	m := primitive.NewMessage(topic, []byte("Zażółć gęślą jaźń, 你好 🚀 "+name))
	m.Flag = 7
	m.WithTag("Tag-" + name).WithKeys([]string{name + "-key1", name + "-key2", "ключ-鍵"})
	wanted := map[string]string{
		"name":         name,
		"ünïcödé-ключ": "значение 値 🚀",
		"blank":        " ",
		"json":         `{"a":[1,2,"\\"],"b":null}`,
		"lines":        "one\r\ntwo\tthree",
		"long":         strings.Repeat("x", 8_000),
	}
	for key, value := range wanted {
		m.WithProperty(key, value)
	}
	return m, wanted
}

func checkSame(sent *primitive.Message, wanted map[string]string, came *primitive.MessageExt) error {
	if came.Topic != sent.Topic || came.GetTags() != sent.GetTags() || came.GetKeys() != sent.GetKeys() || came.Flag != sent.Flag {
		return fmt.Errorf("sent %v, came %v", sent, came)
	}
	if !bytes.Equal(sent.Body, came.Body) {
		return fmt.Errorf("the body of %s differs", sent.GetKeys())
	}
	for key, value := range wanted {
		if found := came.GetProperty(key); found != value {
			return fmt.Errorf("property %s was sent as %q and came as %q", key, value, found)
		}
	}
	return nil
}

func take(received chan *primitive.MessageExt) (*primitive.MessageExt, error) {
	select {
	case m := <-received:
		return m, nil
	case <-time.After(deliveryMax):
		return nil, fmt.Errorf("the message has not come")
	}
}
