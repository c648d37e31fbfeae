package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const (
	pullMax          = 32
	messagesPerQueue = 100
)

// A topic whose queues, but one, hold messagesPerQueue messages each.
type filled struct {
	producer rocketmq.Producer
	topic    string
	queues   []*primitive.MessageQueue
	empty    *primitive.MessageQueue
}

func newFilled(w *world) (*filled, error) {
	p, err := w.producer()
	if err != nil {
		return nil, err
	}
	topic, queues, err := w.topic()
	if err != nil {
		return nil, err
	}
	f := &filled{producer: p, topic: topic, queues: queues[1:], empty: queues[0]}
	for i := 0; i < messagesPerQueue; i++ {
		for _, queue := range f.queues {
			key := keyOf(queue, i)
			message := primitive.NewMessage(topic, payloadOf(key)).WithKeys([]string{key}).WithTag(tagOf(i))
			message.Queue = queue
			sent, err := p.SendSync(context.Background(), message)
			if err != nil {
				return nil, err
			}
			if *sent.MessageQueue != *queue || sent.QueueOffset != int64(i) {
				return nil, fmt.Errorf("message %d of %v was stored at %v", i, queue, sent)
			}
		}
		if i%10 == 0 {
			// Different times for the search by time.
			time.Sleep(3 * time.Millisecond)
		}
	}
	return f, nil
}

func keyOf(queue *primitive.MessageQueue, i int) string {
	return fmt.Sprintf("%s-%d-%d", queue.BrokerName, queue.QueueId, i)
}

func tagOf(i int) string { return "Tag" + string(rune('A'+i%5)) }

// The queue's messages from an offset on, in order, whole.
func check(queue *primitive.MessageQueue, from int, found []*primitive.MessageExt) error {
	for i, m := range found {
		key := keyOf(queue, from+i)
		switch {
		case m.QueueOffset != int64(from+i):
			return fmt.Errorf("offset %d in %v came as message %d after %d", m.QueueOffset, queue, i, from)
		case strings.TrimSpace(m.GetKeys()) != key:
			return fmt.Errorf("key %q at %s, not %s", m.GetKeys(), place(m), key)
		case !bytes.Equal(m.Body, payload(key, len(m.Body))):
			return fmt.Errorf("body of %s", key)
		}
	}
	return nil
}

func (w *world) startedPullConsumer(topic string, selector consumer.MessageSelector) (rocketmq.PullConsumer, error) {
	c, err := w.pullConsumer(w.name("group"))
	if err != nil {
		return nil, err
	}
	if err := c.Subscribe(topic, selector); err != nil {
		return nil, err
	}
	return c, c.Start()
}

// Every answer that a pull can get. The client's pulls always wait at the end of a queue.
func pullPull(w *world) (string, error) {
	f, err := newFilled(w)
	if err != nil {
		return "", err
	}
	c, err := w.startedPullConsumer(f.topic, everything())
	if err != nil {
		return "", err
	}
	some, err := w.startedPullConsumer(f.topic, tags("TagA"))
	if err != nil {
		return "", err
	}
	for _, queue := range f.queues {
		all, err := pullAll(c, queue)
		if err != nil {
			return "", err
		}
		if len(all) != messagesPerQueue {
			return "", fmt.Errorf("%d messages pulled from %v", len(all), queue)
		}
		if err := check(queue, 0, all); err != nil {
			return "", err
		}
		if err := expectPull(c, queue, messagesPerQueue+100, primitive.PullOffsetIllegal, messagesPerQueue); err != nil {
			return "", err
		}
		few, err := c.PullFrom(context.Background(), queue, 7, 3)
		if err != nil {
			return "", err
		}
		if len(few.GetMessageExts()) != 3 || few.NextBeginOffset != 10 || few.MinOffset != 0 || few.MaxOffset != messagesPerQueue {
			return "", fmt.Errorf("a pull of three at 7 found %d, %v", len(few.GetMessageExts()), few)
		}
		if err := check(queue, 7, few.GetMessageExts()); err != nil {
			return "", err
		}
		tagged, err := pullAll(some, queue)
		if err != nil {
			return "", err
		}
		if len(tagged) != messagesPerQueue/5 {
			return "", fmt.Errorf("%d messages of one tag in five", len(tagged))
		}
		for i, m := range tagged {
			if m.GetTags() != "TagA" || m.QueueOffset != int64(5*i) {
				return "", fmt.Errorf("message %d of the tag is %s with tag %s", i, place(m), m.GetTags())
			}
		}
	}
	if err := expectPull(c, f.empty, 5, primitive.PullOffsetIllegal, 0); err != nil {
		return "", err
	}

	// A pull that waits is answered by the next message.
	type answer struct {
		result *primitive.PullResult
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		result, err := c.PullFrom(context.Background(), f.empty, 0, pullMax)
		answers <- answer{result, err}
	}()
	time.Sleep(1_500 * time.Millisecond)
	if len(answers) != 0 {
		return "", fmt.Errorf("a pull of an empty queue did not wait: %v", <-answers)
	}
	late := primitive.NewMessage(f.topic, payloadOf("late")).WithKeys([]string{"late"})
	late.Queue = f.empty
	if _, err := f.producer.SendSync(context.Background(), late); err != nil {
		return "", err
	}
	select {
	case a := <-answers:
		if a.err != nil || a.result.Status != primitive.PullFound || len(a.result.GetMessageExts()) != 1 || a.result.NextBeginOffset != 1 {
			return "", fmt.Errorf("a pull that waited was answered with %v, %w", a.result, a.err)
		}
	case <-time.After(3 * time.Second):
		return "", fmt.Errorf("a pull that waited was not answered by a message")
	}
	return fmt.Sprintf("%d queues of %d messages", len(f.queues), messagesPerQueue), nil
}

func expectPull(c rocketmq.PullConsumer, queue *primitive.MessageQueue, offset int64, status primitive.PullStatus, next int64) error {
	result, err := c.PullFrom(context.Background(), queue, offset, pullMax)
	if err != nil {
		return err
	}
	if result.Status != status || result.NextBeginOffset != next {
		return fmt.Errorf("pull at %d of %v: %v, wanted status %v and next offset %d", offset, queue, result, status, next)
	}
	return nil
}

// Everything up to messagesPerQueue.
func pullAll(c rocketmq.PullConsumer, queue *primitive.MessageQueue) ([]*primitive.MessageExt, error) {
	all := []*primitive.MessageExt{}
	for offset := int64(0); offset < messagesPerQueue; {
		result, err := c.PullFrom(context.Background(), queue, offset, pullMax)
		if err != nil {
			return nil, err
		}
		found := result.GetMessageExts()
		moved := result.Status == primitive.PullFound || result.Status == primitive.PullNoMsgMatched
		if !moved || result.NextBeginOffset <= offset || len(found) > pullMax {
			return nil, fmt.Errorf("pull at %d of %v: %v, %d messages", offset, queue, result, len(found))
		}
		all = append(all, found...)
		offset = result.NextBeginOffset
	}
	return all, nil
}

// The offset for a time is that of the first message stored at it or later.
func pullSearchOffset(w *world) (string, error) {
	f, err := newFilled(w)
	if err != nil {
		return "", err
	}
	c, err := w.startedPullConsumer(f.topic, everything())
	if err != nil {
		return "", err
	}
	asked := 0
	for _, queue := range f.queues {
		all, err := pullAll(c, queue)
		if err != nil {
			return "", err
		}
		times := []int64{0, time.Now().Add(time.Hour).UnixMilli()}
		for i := 0; i < len(all); i += 9 {
			stored := all[i].StoreTimestamp
			times = append(times, stored-1, stored, stored+1)
		}
		for _, at := range times {
			expected := int64(0)
			for _, m := range all {
				if m.StoreTimestamp < at {
					expected++
				}
			}
			found, err := c.OffsetForTimestamp(queue, at)
			if err != nil {
				return "", err
			}
			if found != expected {
				return "", fmt.Errorf("offset for time %d in %v: expected %d, found %d", at, queue, expected, found)
			}
			asked++
		}
	}
	return fmt.Sprintf("%d times asked for", asked), nil
}

// The pull consumer in a group: takes everything, and its successor goes on after it.
func pullPoll(w *world) (string, error) {
	const part = 1_000
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	group := w.name("group")
	l := newLedger(topic)
	for round := 0; round < 2; round++ {
		for i := 0; i < part; i++ {
			if _, err := p.SendSync(context.Background(), l.owe(fmt.Sprintf("poll-%d-%d", round, i))); err != nil {
				return "", err
			}
		}
		c, err := w.pullConsumer(group)
		if err != nil {
			return "", err
		}
		if err := c.Subscribe(topic, everything()); err != nil {
			return "", err
		}
		if err := c.Start(); err != nil {
			return "", err
		}
		owed := part * (round + 1)
		err = within(deliveryMax, func() bool {
			poll(c, l.receive)
			received, repeats := l.counts()
			return received-repeats >= owed
		}, l.describeMissing)
		if err != nil {
			return "", err
		}
		// Once more, so that a repetition would show.
		poll(c, l.receive)
		if err := c.PersistOffset(context.Background(), topic); err != nil {
			return "", err
		}
		if err := c.Shutdown(); err != nil {
			return "", err
		}
		if err := l.awaitExactly(deliveryMax); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d messages by two consumers in turn, none repeated", 2*part), nil
}

func poll(c rocketmq.PullConsumer, take listener) {
	request, err := c.Poll(context.Background(), 200*time.Millisecond)
	if err != nil {
		// Nothing new.
		return
	}
	for _, m := range request.GetMsgList() {
		take(m)
	}
	c.ACK(context.Background(), request, consumer.ConsumeSuccess)
}

// The pull consumer without a group's help: it takes what it names, from where it says.
func pullAssignAndSeek(w *world) (string, error) {
	f, err := newFilled(w)
	if err != nil {
		return "", err
	}
	for _, from := range []int{0, messagesPerQueue / 2, messagesPerQueue - 1} {
		c, err := w.pullConsumer(w.name("group"))
		if err != nil {
			return "", err
		}
		if err := c.Assign(f.topic, f.queues); err != nil {
			return "", err
		}
		for _, queue := range f.queues {
			c.SeekOffset(queue, int64(from))
		}
		if err := c.Start(); err != nil {
			return "", err
		}
		polled := map[primitive.MessageQueue][]*primitive.MessageExt{}
		count := 0
		err = within(deliveryMax, func() bool {
			poll(c, func(m *primitive.MessageExt) {
				polled[*m.Queue] = append(polled[*m.Queue], m)
				count++
			})
			return count >= len(f.queues)*(messagesPerQueue-from)
		}, func() string { return fmt.Sprintf("%d messages polled", count) })
		if err != nil {
			return "", err
		}
		for _, queue := range f.queues {
			if len(polled[*queue]) != messagesPerQueue-from {
				return "", fmt.Errorf("%d messages of %v from %d on", len(polled[*queue]), queue, from)
			}
			if err := check(queue, from, polled[*queue]); err != nil {
				return "", err
			}
		}
		if err := c.Shutdown(); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d queues from the beginning, the middle and the last message", len(f.queues)), nil
}
