package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const (
	queuesPerBroker = 4
	sendTimeout     = 10 * time.Second
	routeMax        = 10 * time.Second
)

// The clients of one scenario, with names that no other run uses. All are shut down when it ends.
type world struct {
	namesrv primitive.NamesrvAddr
	prefix  string

	mutex     sync.Mutex
	names     int
	shutdowns []func() error
}

func newWorld(namesrv, prefix string) *world {
	return &world{namesrv: primitive.NamesrvAddr{namesrv}, prefix: prefix}
}

// A name that was not used before, for a topic, a group or a client.
func (w *world) name(kind string) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.names++
	return fmt.Sprintf("%s-%s-%d", w.prefix, kind, w.names)
}

func (w *world) onClose(shutdown func() error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.shutdowns = append(w.shutdowns, shutdown)
}

func (w *world) close() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for i := len(w.shutdowns) - 1; i >= 0; i-- {
		// A client that was shut down before, or never came up, has nothing to say that matters here.
		_ = w.shutdowns[i]()
	}
}

// Retries nothing: each failure shows, and no message is sent twice. Messages that name a queue go there.
func (w *world) producer(options ...producer.Option) (rocketmq.Producer, error) {
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNameServer(w.namesrv),
		producer.WithGroupName(w.name("producer")),
		producer.WithInstanceName(w.name("instance")),
		producer.WithSendMsgTimeout(sendTimeout),
		producer.WithRetry(0),
		producer.WithQueueSelector(&chosenOrNext{next: producer.NewRoundRobinQueueSelector()}),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	w.onClose(p.Shutdown)
	return p, p.Start()
}

type chosenOrNext struct{ next producer.QueueSelector }

func (c *chosenOrNext) Select(m *primitive.Message, queues []*primitive.MessageQueue, last string) *primitive.MessageQueue {
	if m.Queue != nil {
		return m.Queue
	}
	return c.next.Select(m, queues, last)
}

func (w *world) admin() (admin.Admin, error) {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver(w.namesrv)))
	if err == nil {
		w.onClose(a.Close)
	}
	return a, err
}

// A topic made for this scenario, with queuesPerBroker queues on every broker; its route is known.
func (w *world) topic() (string, []*primitive.MessageQueue, error) {
	topic := w.name("topic")
	queues, err := w.createTopic(topic, queuesPerBroker)
	return topic, queues, err
}

func (w *world) createTopic(topic string, queues int) ([]*primitive.MessageQueue, error) {
	a, err := w.admin()
	if err != nil {
		return nil, err
	}
	brokers, err := w.brokerAddresses()
	if err != nil {
		return nil, err
	}
	for _, address := range brokers {
		err := a.CreateTopic(context.Background(), admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(address),
			admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues))
		if err != nil {
			return nil, err
		}
	}
	return w.awaitRoute(topic, queues*len(brokers))
}

// Waits for a route with so many queues, asking anew each time.
func (w *world) awaitRoute(topic string, count int) ([]*primitive.MessageQueue, error) {
	var queues []*primitive.MessageQueue
	err := within(routeMax, func() bool {
		a, err := w.admin()
		if err != nil {
			return false
		}
		queues, err = a.FetchPublishMessageQueues(context.Background(), topic)
		return err == nil && len(queues) == count
	}, func() string { return fmt.Sprintf("%d queues of %s, found %v", count, topic, queues) })
	return queues, err
}

var brokersOnce struct {
	sync.Mutex
	found map[string]string
}

// Addresses by broker name. The client has no call for them; the offset ids of messages to every queue of a topic of
// automatic creation name them.
func (w *world) brokerAddresses() (map[string]string, error) {
	brokersOnce.Lock()
	defer brokersOnce.Unlock()
	if brokersOnce.found != nil {
		return brokersOnce.found, nil
	}
	p, err := w.producer()
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	topic := w.name("brokers")
	for i := 0; i < 64; i++ {
		sent, err := p.SendSync(context.Background(), primitive.NewMessage(topic, []byte("where")))
		if err != nil {
			return nil, err
		}
		id, err := primitive.UnmarshalMsgID([]byte(sent.OffsetMsgID))
		if err != nil {
			return nil, err
		}
		found[sent.MessageQueue.BrokerName] = fmt.Sprintf("%s:%d", id.Addr, id.Port)
	}
	brokersOnce.found = found
	return found, nil
}

type listener func(*primitive.MessageExt)

func everything() consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}
}

func tags(expression string) consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.TAG, Expression: expression}
}

// Started; from the first message on, for groups without offsets, unless an option says otherwise.
func (w *world) pushConsumer(group, topic string, selector consumer.MessageSelector, take listener,
	options ...consumer.Option) (rocketmq.PushConsumer, error) {
	c, err := rocketmq.NewPushConsumer(w.consumerOptions(group, options)...)
	if err != nil {
		return nil, err
	}
	w.onClose(c.Shutdown)
	err = c.Subscribe(topic, selector, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			take(message)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Start()
}

// Not started.
func (w *world) pullConsumer(group string, options ...consumer.Option) (rocketmq.PullConsumer, error) {
	c, err := rocketmq.NewPullConsumer(w.consumerOptions(group, options)...)
	if err == nil {
		w.onClose(c.Shutdown)
	}
	return c, err
}

func (w *world) consumerOptions(group string, options []consumer.Option) []consumer.Option {
	return append([]consumer.Option{
		consumer.WithNameServer(w.namesrv),
		consumer.WithGroupName(group),
		consumer.WithInstance(w.name("instance")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)
}

// Waits until a condition holds.
func within(limit time.Duration, condition func() bool, otherwise func() string) error {
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", limit, otherwise())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}
