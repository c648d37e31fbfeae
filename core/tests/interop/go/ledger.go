package main

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const (
	bodyBytesMin = 100
	bodyBytesMax = 1100
	// Silence after which nothing more is expected.
	quiet = 700 * time.Millisecond
)

// A body that can be made again from the message's key and the body's length: the key, a line feed, and noise.
func payload(key string, length int) []byte {
	hash := fnv.New64a()
	hash.Write([]byte(key))
	body := make([]byte, length)
	rand.New(rand.NewSource(int64(hash.Sum64()))).Read(body)
	copy(body, key+"\n")
	return body
}

func payloadOf(key string) []byte {
	hash := fnv.New32a()
	hash.Write([]byte(key))
	return payload(key, bodyBytesMin+int(hash.Sum32()%(bodyBytesMax-bodyBytesMin)))
}

// Which messages are owed, which came, how often, and whether they came as they were sent.
type ledger struct {
	topic string

	mutex        sync.Mutex
	owed         map[string]bool
	came         map[string]int
	missing      int
	received     int
	lastReceived time.Time
	faults       []string
}

func newLedger(topic string) *ledger {
	return &ledger{topic: topic, owed: map[string]bool{}, came: map[string]int{}, lastReceived: time.Now()}
}

// A message that is owed from now on.
func (l *ledger) owe(key string) *primitive.Message {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !l.owed[key] {
		l.owed[key] = true
		if l.came[key] == 0 {
			l.missing++
		}
	}
	return l.message(key)
}

// A message that nobody waits for.
func (l *ledger) message(key string) *primitive.Message {
	return primitive.NewMessage(l.topic, payloadOf(key)).WithKeys([]string{key})
}

func (l *ledger) receive(m *primitive.MessageExt) {
	// The client joins keys with blanks, and ends them with one.
	key := strings.TrimSpace(m.GetKeys())
	intact := key != "" && bytes.Equal(m.Body, payload(key, len(m.Body)))
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.received++
	l.lastReceived = time.Now()
	if !intact {
		l.faults = append(l.faults, fmt.Sprintf("message %q at %s has another body than was sent", key, place(m)))
		return
	}
	l.came[key]++
	if l.came[key] == 1 && l.owed[key] {
		l.missing--
	}
}

// Something that makes the scenario fail when it comes to awaitAll.
func (l *ledger) fault(format string, args ...interface{}) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *ledger) hasCome(key string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.came[key] > 0
}

func (l *ledger) counts() (received, repeats int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.received, l.received - len(l.came)
}

// Waits until everything owed has come and nothing more comes; nothing may be missing, foreign or damaged.
func (l *ledger) awaitAll(limit time.Duration) error {
	err := within(limit, func() bool {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		return l.missing == 0
	}, l.describeMissing)
	if err != nil {
		return err
	}
	begun := time.Now()
	for {
		l.mutex.Lock()
		since := l.lastReceived
		l.mutex.Unlock()
		if time.Since(since) > quiet && time.Since(begun) > quiet/2 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.faults) > 0 {
		return fmt.Errorf("%d faults, such as: %s", len(l.faults), l.faults[0])
	}
	for key := range l.came {
		if !l.owed[key] {
			return fmt.Errorf("came though not owed: %s and perhaps more", key)
		}
	}
	return nil
}

// As awaitAll, and each exactly once.
func (l *ledger) awaitExactly(limit time.Duration) error {
	if err := l.awaitAll(limit); err != nil {
		return err
	}
	if _, repeats := l.counts(); repeats != 0 {
		return fmt.Errorf("%d messages came again", repeats)
	}
	return nil
}

func (l *ledger) describeMissing() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	some := []string{}
	for key := range l.owed {
		if l.came[key] == 0 && len(some) < 5 {
			some = append(some, key)
		}
	}
	return fmt.Sprintf("%d of %d messages have not come, such as %v; faults: %v", l.missing, len(l.owed), some, l.faults)
}

func place(m *primitive.MessageExt) string {
	if m.Queue == nil {
		return fmt.Sprintf("%s/?/%d", m.StoreHost, m.QueueOffset)
	}
	return fmt.Sprintf("%s/%d/%d", m.Queue.BrokerName, m.Queue.QueueId, m.QueueOffset)
}

// Queue offsets that send results named.
type positions struct {
	mutex sync.Mutex
	taken map[primitive.MessageQueue]map[int64]bool
}

// count messages from the result's offset on.
func (p *positions) add(sent *primitive.SendResult, count int) error {
	if sent.Status != primitive.SendOK {
		return fmt.Errorf("status of a send: %v", sent)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.taken == nil {
		p.taken = map[primitive.MessageQueue]map[int64]bool{}
	}
	offsets := p.taken[*sent.MessageQueue]
	if offsets == nil {
		offsets = map[int64]bool{}
		p.taken[*sent.MessageQueue] = offsets
	}
	for i := 0; i < count; i++ {
		offset := sent.QueueOffset + int64(i)
		if offsets[offset] {
			return fmt.Errorf("offset %d of %v was given twice", offset, sent.MessageQueue)
		}
		offsets[offset] = true
	}
	return nil
}

// Every queue was filled from offset 0 without a hole, and messages in all.
func (p *positions) checkContiguous(messages int) error {
	sum := 0
	for queue, offsets := range p.taken {
		sum += len(offsets)
		for i := range offsets {
			if i < 0 || i >= int64(len(offsets)) {
				return fmt.Errorf("%d messages in %v, one at offset %d", len(offsets), queue, i)
			}
		}
	}
	if sum != messages {
		return fmt.Errorf("%d offsets given for %d messages", sum, messages)
	}
	return nil
}
