package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// Consumers rebalance by themselves every 20 s: who gets no share in less was not notified.
const notifiedMax = 15 * time.Second

// Two consumers share a topic, a third comes and goes: each gets a share, and together they get everything.
func pushClustering(w *world) (string, error) {
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
	members := []*member{}
	for i := 0; i < 2; i++ {
		m, err := newMember(w, group, topic, l)
		if err != nil {
			return "", err
		}
		members = append(members, m)
	}
	t := startTraffic(500, func(i int) error {
		_, err := p.SendSync(context.Background(), l.owe(fmt.Sprintf("traffic-%d", i)))
		return err
	})
	defer t.stop()

	two, err := awaitShares(members)
	if err != nil {
		return "", err
	}
	third, err := newMember(w, group, topic, l)
	if err != nil {
		return "", err
	}
	three, err := awaitShares(append(members, third))
	if err != nil {
		return "", err
	}
	if err := third.consumer.Shutdown(); err != nil {
		return "", err
	}
	twoAgain, err := awaitShares(members)
	if err != nil {
		return "", err
	}
	if err := t.stop(); err != nil {
		return "", err
	}
	if err := l.awaitAll(deliveryMax); err != nil {
		return "", err
	}
	_, repeats := l.counts()
	return fmt.Sprintf("%d messages, shares %d + %d + %d, %d repeated; each had some after %d ms, %d ms, %d ms",
		t.sent(), members[0].count(), members[1].count(), third.count(), repeats,
		two.Milliseconds(), three.Milliseconds(), twoAgain.Milliseconds()), nil
}

// A consumer of a group that counts its share.
type member struct {
	consumer rocketmq.PushConsumer
	took     int64
}

func newMember(w *world, group, topic string, l *ledger) (*member, error) {
	m := &member{}
	var err error
	m.consumer, err = w.pushConsumer(group, topic, everything(), func(message *primitive.MessageExt) {
		atomic.AddInt64(&m.took, 1)
		l.receive(message)
	})
	return m, err
}

func (m *member) count() int64 { return atomic.LoadInt64(&m.took) }

// Waits until each member has got messages from now on.
func awaitShares(members []*member) (time.Duration, error) {
	begun := time.Now()
	goals := []int64{}
	for _, m := range members {
		goals = append(goals, m.count()+20)
	}
	for i, m := range members {
		err := within(notifiedMax, func() bool { return m.count() >= goals[i] },
			func() string { return fmt.Sprintf("consumer %d of %d gets no messages", i+1, len(members)) })
		if err != nil {
			return 0, err
		}
	}
	return time.Since(begun), nil
}

// Each of two consumers gets everything.
func pushBroadcast(w *world) (string, error) {
	const count = 2_000
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	group := w.name("group")
	ledgers := []*ledger{newLedger(topic), newLedger(topic)}
	for _, l := range ledgers {
		_, err := w.pushConsumer(group, topic, everything(), l.receive, consumer.WithConsumerModel(consumer.BroadCasting))
		if err != nil {
			return "", err
		}
	}
	for i := 0; i < count; i++ {
		key := fmt.Sprintf("broadcast-%d", i)
		for _, l := range ledgers {
			l.owe(key)
		}
		if _, err := p.SendSync(context.Background(), ledgers[0].message(key)); err != nil {
			return "", err
		}
	}
	for _, l := range ledgers {
		if err := l.awaitExactly(deliveryMax); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d messages, each received once by each of %d", count, len(ledgers)), nil
}

// Of two tags, and of a tag that shares its hash with one that is not wanted ("Aa" and "BB").
func pushTagFilter(w *world) (string, error) {
	const count = 1_200
	sentTags := []string{"TagA", "TagB", "TagC", "TagD", "Aa", "BB", "", "tagA"}
	wanted := map[string]bool{"TagA": true, "TagC": true, "Aa": true}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	some, all := newLedger(topic), newLedger(topic)
	if _, err := w.pushConsumer(w.name("group"), topic, tags("TagA || TagC||Aa"), some.receive); err != nil {
		return "", err
	}
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), all.receive); err != nil {
		return "", err
	}
	for i := 0; i < count; i++ {
		tag := sentTags[i%len(sentTags)]
		key := fmt.Sprintf("tag-%d", i)
		message := all.owe(key).WithTag(tag)
		if wanted[tag] {
			some.owe(key)
		}
		if _, err := p.SendSync(context.Background(), message); err != nil {
			return "", err
		}
	}
	if err := all.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	if err := some.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	received, _ := some.counts()
	return fmt.Sprintf("%d of %d messages, all of them without a filter", received, count), nil
}

// Each key's messages come in order and without a gap, and no queue is consumed by two consumers at once, also when
// one takes over from another. A message may come again when its queue changes hands.
//
// The second consumer starts when the first has gone: the client unlocks queues when it shuts down, but leaves the
// locks of those that it loses in a rebalance to expire, after a minute.
func pushOrdered(w *world) (string, error) {
	const keys = 40
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, queues, err := w.topic()
	if err != nil {
		return "", err
	}
	group := w.name("group")
	l := newLedger(topic)
	judge := orderJudge{ledger: l, last: map[string]int{}, inWork: map[primitive.MessageQueue]bool{}}
	t := startTraffic(500, func(i int) error {
		message := l.owe(fmt.Sprintf("ordered-%d-%d", i%keys, i/keys))
		message.Queue = queues[i%keys%len(queues)]
		_, err := p.SendSync(context.Background(), message)
		return err
	})
	defer t.stop()

	counts := [2]int64{}
	for i := range counts {
		count := &counts[i]
		c, err := w.pushConsumer(group, topic, everything(), func(m *primitive.MessageExt) {
			judge.consume(m)
			atomic.AddInt64(count, 1)
		}, consumer.WithConsumerOrder(true))
		if err != nil {
			return "", err
		}
		err = within(deliveryMax, func() bool { return atomic.LoadInt64(count) > 200 },
			func() string { return fmt.Sprintf("consumer %d gets %d messages", i+1, atomic.LoadInt64(count)) })
		if err != nil {
			return "", err
		}
		if i == 0 {
			if err := c.Shutdown(); err != nil {
				return "", err
			}
		}
	}
	if err := t.stop(); err != nil {
		return "", err
	}
	if err := l.awaitAll(deliveryMax); err != nil {
		return "", err
	}
	_, repeats := l.counts()
	return fmt.Sprintf("%d messages of %d keys in order, %d + %d of them by two consumers in turn, %d repeated",
		t.sent(), keys, counts[0], counts[1], repeats), nil
}

// Watches order within keys and exclusivity of queues.
type orderJudge struct {
	ledger *ledger
	mutex  sync.Mutex
	last   map[string]int
	inWork map[primitive.MessageQueue]bool
}

func (j *orderJudge) consume(m *primitive.MessageExt) {
	parts := strings.Split(strings.TrimSpace(m.GetKeys()), "-")
	number, err := strconv.Atoi(parts[2])
	if err != nil {
		j.ledger.fault("key %q", m.GetKeys())
	}
	j.mutex.Lock()
	if j.inWork[*m.Queue] {
		j.ledger.fault("queue %v is consumed twice at the same time", m.Queue)
	}
	j.inWork[*m.Queue] = true
	last, seen := j.last[parts[1]]
	if !seen {
		last = -1
	}
	if number > last+1 {
		j.ledger.fault("key %s: %d after %d", parts[1], number, last)
	}
	j.last[parts[1]] = number
	j.mutex.Unlock()

	j.ledger.receive(m)

	j.mutex.Lock()
	delete(j.inWork, *m.Queue)
	j.mutex.Unlock()
}

// A consumer goes on where the group stopped. After an orderly end nothing comes again; after an end in the middle of
// the work only what was in work.
func pushResume(w *world) (string, error) {
	const part = 2_000
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
	send := func(prefix string) error {
		for i := 0; i < part; i++ {
			if _, err := p.SendSync(context.Background(), l.owe(fmt.Sprintf("resume-%s-%d", prefix, i))); err != nil {
				return err
			}
		}
		return nil
	}

	first, err := w.pushConsumer(group, topic, everything(), l.receive)
	if err != nil {
		return "", err
	}
	if err := send("first"); err != nil {
		return "", err
	}
	if err := l.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	if err := first.Shutdown(); err != nil {
		return "", err
	}

	if err := send("second"); err != nil {
		return "", err
	}
	var slow int64
	second, err := w.pushConsumer(group, topic, everything(), func(m *primitive.MessageExt) {
		time.Sleep(10 * time.Millisecond)
		l.receive(m)
		atomic.AddInt64(&slow, 1)
	})
	if err != nil {
		return "", err
	}
	err = within(deliveryMax, func() bool { return atomic.LoadInt64(&slow) >= part/8 },
		func() string { return "the second consumer gets nothing" })
	if err != nil {
		return "", err
	}
	if err := second.Shutdown(); err != nil {
		return "", err
	}
	consumedBefore := atomic.LoadInt64(&slow)
	if _, repeats := l.counts(); repeats != 0 {
		return "", fmt.Errorf("%d messages came again after an orderly end", repeats)
	}
	if consumedBefore >= part {
		return "", fmt.Errorf("the second consumer was to be stopped in the middle of its work")
	}

	if _, err := w.pushConsumer(group, topic, everything(), l.receive); err != nil {
		return "", err
	}
	if err := l.awaitAll(deliveryMax); err != nil {
		return "", err
	}
	// A queue's offset is that of its oldest message in work: what was finished beyond it comes again.
	const inWorkMax = 500
	_, repeats := l.counts()
	if repeats > inWorkMax {
		return "", fmt.Errorf("%d messages came again", repeats)
	}
	return fmt.Sprintf("%d messages by three consumers in turn, the second stopped after %d, %d repeated",
		2*part, consumedBefore, repeats), nil
}

// A group without offsets begins where its consumer says. A broker may answer for a young queue, all of which is
// still in memory, that the group is at its start: then the older messages come too, in full.
func pushStartFrom(w *world) (string, error) {
	const part = 400
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, _, err := w.topic()
	if err != nil {
		return "", err
	}
	first, timed := newLedger(topic), newLedger(topic)
	for i := 0; i < part; i++ {
		if _, err := p.SendSync(context.Background(), first.owe(fmt.Sprintf("start-old-%d", i))); err != nil {
			return "", err
		}
	}
	// The time is given in whole seconds.
	time.Sleep(1_100 * time.Millisecond)
	between := time.Now().UTC().Format("20060102150405")
	time.Sleep(1_100 * time.Millisecond)
	for i := 0; i < part; i++ {
		key := fmt.Sprintf("start-new-%d", i)
		timed.owe(key)
		if _, err := p.SendSync(context.Background(), first.owe(key)); err != nil {
			return "", err
		}
	}
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), first.receive); err != nil {
		return "", err
	}
	if err := first.awaitExactly(deliveryMax); err != nil {
		return "", err
	}

	var older int64
	_, err = w.pushConsumer(w.name("group"), topic, everything(), func(m *primitive.MessageExt) {
		if strings.HasPrefix(m.GetKeys(), "start-old-") {
			atomic.AddInt64(&older, 1)
		} else {
			timed.receive(m)
		}
	}, consumer.WithConsumeFromWhere(consumer.ConsumeFromTimestamp), consumer.WithConsumeTimestamp(between))
	if err != nil {
		return "", err
	}
	if err := timed.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	if o := atomic.LoadInt64(&older); o != 0 && o != part {
		return "", fmt.Errorf("%d of %d older messages came", o, part)
	}
	return fmt.Sprintf("from the first: %d messages; from a time: the %d newer and %d older", 2*part, part, older), nil
}

// A waiting consumer gets a message when it arrives, not when its wait is over.
func pushLongPoll(w *world) (string, error) {
	const count = 20
	// Far below the 20 s for which the client lets a pull wait, far above what a busy machine makes of "at once".
	const latencyMax = 3 * time.Second
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic, queues, err := w.topic()
	if err != nil {
		return "", err
	}
	l := newLedger(topic)
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), l.receive); err != nil {
		return "", err
	}
	// All queues are pulled once this has come, and waiting a while later.
	for i, queue := range queues {
		message := l.owe(fmt.Sprintf("poll-first-%d", i))
		message.Queue = queue
		if _, err := p.SendSync(context.Background(), message); err != nil {
			return "", err
		}
	}
	if err := l.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	time.Sleep(time.Second)
	var worst time.Duration
	for i := 0; i < count; i++ {
		key := fmt.Sprintf("poll-%d", i)
		message := l.owe(key)
		sent := time.Now()
		if _, err := p.SendSync(context.Background(), message); err != nil {
			return "", err
		}
		err := within(latencyMax, func() bool { return l.hasCome(key) }, func() string { return key + " came late or not at all" })
		if err != nil {
			return "", err
		}
		if took := time.Since(sent); took > worst {
			worst = took
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := l.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d messages, slowest %d ms", count, worst.Milliseconds()), nil
}

// Messages at a steady rate in the background, until it is stopped.
type traffic struct {
	count    int64
	stopping chan struct{}
	once     sync.Once
	failure  chan error
	ended    error
}

func startTraffic(perSecond int, send func(i int) error) *traffic {
	t := &traffic{stopping: make(chan struct{}), failure: make(chan error, 1)}
	go func() {
		ticker := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-t.stopping:
				t.failure <- nil
				return
			case <-ticker.C:
			}
			if err := send(i); err != nil {
				t.failure <- err
				return
			}
			atomic.AddInt64(&t.count, 1)
		}
	}()
	return t
}

func (t *traffic) sent() int64 { return atomic.LoadInt64(&t.count) }

// After this nothing more is sent; tells if a send has failed.
func (t *traffic) stop() error {
	t.once.Do(func() {
		close(t.stopping)
		t.ended = <-t.failure
	})
	return t.ended
}
