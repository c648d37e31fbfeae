package main

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const (
	// What a busy machine makes of "on time".
	lateMax = 20 * time.Second
	// RocketMQ's wheel counts in seconds: a timer may go off up to one too early.
	earlyMax = 1_100 * time.Millisecond
	// Several rounds of checks, on a busy machine.
	checkedMax = 90 * time.Second
	// Longer than two rounds of checks.
	noMoreChecks = 12 * time.Second
	// See the harness's settings of the server.
	checksMax = 3
)

// What came, by key, and when.
type inbox struct {
	mutex    sync.Mutex
	arrivals map[string][]arrival
}

type arrival struct {
	message *primitive.MessageExt
	at      time.Time
}

func newInbox() *inbox { return &inbox{arrivals: map[string][]arrival{}} }

func (b *inbox) take(m *primitive.MessageExt) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	key := strings.TrimSpace(m.GetKeys())
	b.arrivals[key] = append(b.arrivals[key], arrival{m, time.Now()})
}

func (b *inbox) of(key string) []arrival {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return append([]arrival(nil), b.arrivals[key]...)
}

// Waits until each key has come so often, whole.
func (b *inbox) await(keys []string, times int, limit time.Duration) error {
	for _, key := range keys {
		err := within(limit, func() bool { return len(b.of(key)) >= times },
			func() string { return fmt.Sprintf("%s came %d times, not %d", key, len(b.of(key)), times) })
		if err != nil {
			return err
		}
		body := b.of(key)[0].message.Body
		if !bytes.Equal(body, payload(key, len(body))) {
			return fmt.Errorf("the body of %s differs", key)
		}
	}
	return nil
}

// Each key came so often, and nothing else came at all.
func (b *inbox) checkExactly(keys []string, times int) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	wanted := map[string]bool{}
	for _, key := range keys {
		wanted[key] = true
		if len(b.arrivals[key]) != times {
			return fmt.Errorf("%s came %d times, not %d", key, len(b.arrivals[key]), times)
		}
	}
	for key := range b.arrivals {
		if !wanted[key] {
			return fmt.Errorf("came though not owed: %s", key)
		}
	}
	return nil
}

// Which message is due when.
type timetable struct {
	early time.Duration
	due   map[string]time.Time
}

func (t *timetable) send(p rocketmq.Producer, m *primitive.Message, delay time.Duration) error {
	t.due[m.GetKeys()] = time.Now().Add(delay)
	sent, err := p.SendSync(context.Background(), m)
	if err == nil && sent.Status != primitive.SendOK {
		return fmt.Errorf("status of a send: %v", sent)
	}
	return err
}

// None early, none late, each once. Returns how late they were, in words.
func (t *timetable) await(b *inbox) (string, error) {
	keys := []string{}
	last := time.Now()
	for key, due := range t.due {
		keys = append(keys, key)
		if due.After(last) {
			last = due
		}
	}
	if err := b.await(keys, 1, time.Until(last)+lateMax); err != nil {
		return "", err
	}
	late := []time.Duration{}
	for _, key := range keys {
		by := b.of(key)[0].at.Sub(t.due[key])
		if by < -t.early || by > lateMax {
			return "", fmt.Errorf("%s came %v late", key, by)
		}
		late = append(late, by)
	}
	sort.Slice(late, func(i, j int) bool { return late[i] < late[j] })
	words := fmt.Sprintf("late by %d ms in the middle, %d ms at most",
		late[len(late)/2].Milliseconds(), late[len(late)-1].Milliseconds())
	return words, b.checkExactly(keys, 1)
}

// A producer, a topic, and a consumer that puts what comes into an inbox.
type desk struct {
	producer rocketmq.Producer
	topic    string
	inbox    *inbox
}

func newDesk(w *world) (*desk, error) {
	p, err := w.producer()
	if err != nil {
		return nil, err
	}
	topic, _, err := w.topic()
	if err != nil {
		return nil, err
	}
	d := &desk{producer: p, topic: topic, inbox: newInbox()}
	_, err = w.pushConsumer(w.name("group"), topic, everything(), d.inbox.take)
	return d, err
}

func (d *desk) message(key string) *primitive.Message {
	return primitive.NewMessage(d.topic, payloadOf(key)).WithKeys([]string{key})
}

// Each comes once, in its own topic, after its level's time; those without a level come at once.
func laterDelayLevel(w *world) (string, error) {
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	secondsOfLevel := map[int]int{1: 1, 2: 5, 3: 10, 4: 30}
	t := &timetable{due: map[string]time.Time{}}
	for i := 0; i < 5; i++ {
		for level, seconds := range secondsOfLevel {
			m := d.message(fmt.Sprintf("level-%d-%d", level, i)).WithDelayTimeLevel(level)
			if err := t.send(d.producer, m, time.Duration(seconds)*time.Second); err != nil {
				return "", err
			}
		}
		if err := t.send(d.producer, d.message(fmt.Sprintf("level-0-%d", i)), 0); err != nil {
			return "", err
		}
	}
	return t.await(d.inbox)
}

// At any time; what is due already comes at once.
func laterTimer(w *world) (string, error) {
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	t := &timetable{early: earlyMax, due: map[string]time.Time{}}
	for i := 0; i < 5; i++ {
		delay := time.Duration(2_300+900*i) * time.Millisecond
		m := d.message(fmt.Sprintf("at-%d", i)).WithDelayTimestamp(time.Now().Add(delay))
		if err := t.send(d.producer, m, delay); err != nil {
			return "", err
		}
		past := d.message(fmt.Sprintf("past-%d", i)).WithDelayTimestamp(time.Now().Add(-time.Minute))
		if err := t.send(d.producer, past, 0); err != nil {
			return "", err
		}
	}
	return t.await(d.inbox)
}

// Answers as the keys say: the first of the words for the local transaction, the next for each check after it.
type judge struct {
	mutex  sync.Mutex
	checks map[string]int
}

func newJudge() *judge { return &judge{checks: map[string]int{}} }

func answerOf(key string, n int) primitive.LocalTransactionState {
	answers := strings.Split(strings.Split(key, "-")[0], "+")
	if n >= len(answers) {
		n = len(answers) - 1
	}
	switch answers[n] {
	case "commit":
		return primitive.CommitMessageState
	case "rollback":
		return primitive.RollbackMessageState
	}
	return primitive.UnkonwnState
}

func (j *judge) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	return answerOf(m.GetKeys(), 0)
}

func (j *judge) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	key := strings.TrimSpace(m.GetKeys())
	j.checks[key]++
	return answerOf(key, j.checks[key])
}

func (j *judge) checksOf(key string) int {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.checks[key]
}

func (w *world) transactionProducer(group string, j *judge) (rocketmq.TransactionProducer, error) {
	p, err := rocketmq.NewTransactionProducer(j, producer.WithNameServer(w.namesrv), producer.WithGroupName(group),
		producer.WithInstanceName(w.name("instance")), producer.WithSendMsgTimeout(sendTimeout), producer.WithRetry(0))
	if err != nil {
		return nil, err
	}
	w.onClose(p.Shutdown)
	return p, p.Start()
}

func (d *desk) sendHalves(p rocketmq.TransactionProducer, answers string, count int) ([]string, error) {
	keys := []string{}
	for i := 0; i < count; i++ {
		key := fmt.Sprintf("%s-%d", answers, i)
		keys = append(keys, key)
		sent, err := p.SendMessageInTransaction(context.Background(), d.message(key))
		if err != nil {
			return nil, err
		}
		if sent.Status != primitive.SendOK {
			return nil, fmt.Errorf("status of a send: %v", sent)
		}
	}
	return keys, nil
}

// Committed ones come once, rolled back ones never; who says nothing is asked.
func laterTransaction(w *world) (string, error) {
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	j := newJudge()
	p, err := w.transactionProducer(w.name("producer"), j)
	if err != nil {
		return "", err
	}
	owed, never := []string{}, []string{}
	for _, answers := range []string{"commit", "rollback", "unknown+commit", "unknown+rollback", "unknown+unknown+commit"} {
		keys, err := d.sendHalves(p, answers, 5)
		if err != nil {
			return "", err
		}
		if strings.HasSuffix(answers, "commit") {
			owed = append(owed, keys...)
		} else {
			never = append(never, keys...)
		}
	}
	if err := d.inbox.await(owed, 1, checkedMax); err != nil {
		return "", err
	}
	time.Sleep(noMoreChecks)
	if err := d.inbox.checkExactly(owed, 1); err != nil {
		return "", err
	}
	for _, key := range append(never, owed...) {
		if asked := j.checksOf(key) > 0; asked != strings.HasPrefix(key, "unknown") {
			return "", fmt.Errorf("%s was asked about %d times", key, j.checksOf(key))
		}
	}
	return fmt.Sprintf("%d committed and %d rolled back", len(owed), len(never)), nil
}

// Another producer of the group is asked when the one that sent has gone.
func laterTransactionCheck(w *world) (string, error) {
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	group := w.name("producer")
	first, err := w.transactionProducer(group, newJudge())
	if err != nil {
		return "", err
	}
	owed, err := d.sendHalves(first, "unknown+commit", 5)
	if err != nil {
		return "", err
	}
	if err := first.Shutdown(); err != nil {
		return "", err
	}
	second, err := w.transactionProducer(group, newJudge())
	if err != nil {
		return "", err
	}
	// It is told of the group with the heartbeat that follows the first message.
	if _, err := d.sendHalves(second, "rollback", 1); err != nil {
		return "", err
	}
	if err := d.inbox.await(owed, 1, checkedMax); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d committed by another producer of the group", len(owed)), d.inbox.checkExactly(owed, 1)
}

// Who never answers is asked so often, then no more; the message is never delivered.
func laterTransactionLimit(w *world) (string, error) {
	d, err := newDesk(w)
	if err != nil {
		return "", err
	}
	j := newJudge()
	p, err := w.transactionProducer(w.name("producer"), j)
	if err != nil {
		return "", err
	}
	keys, err := d.sendHalves(p, "unknown", 3)
	if err != nil {
		return "", err
	}
	for _, key := range keys {
		err := within(checkedMax, func() bool { return j.checksOf(key) >= checksMax },
			func() string { return fmt.Sprintf("%d checks of %s", j.checksOf(key), key) })
		if err != nil {
			return "", err
		}
	}
	time.Sleep(noMoreChecks)
	for _, key := range keys {
		if j.checksOf(key) != checksMax {
			return "", fmt.Errorf("%d checks of %s", j.checksOf(key), key)
		}
	}
	return fmt.Sprintf("%d messages asked about %d times each", len(keys), checksMax), d.inbox.checkExactly(nil, 0)
}
