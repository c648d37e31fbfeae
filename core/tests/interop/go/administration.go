package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// A topic that a client makes is there at once, with its queues on every broker, and can be made larger.
func adminCreateTopic(w *world) (string, error) {
	topic := w.name("topic")
	brokers, err := w.brokerAddresses()
	if err != nil {
		return "", err
	}
	for _, count := range []int{3, 7} {
		queues, err := w.createTopic(topic, count)
		if err != nil {
			return "", err
		}
		if err := checkQueueIDs(queues, count); err != nil {
			return "", err
		}
		p, err := w.producer()
		if err != nil {
			return "", err
		}
		l := newLedger(topic)
		prefix := fmt.Sprintf("create-%d-", count)
		for _, queue := range queues {
			message := l.owe(fmt.Sprintf("%s%s-%d", prefix, queue.BrokerName, queue.QueueId))
			message.Queue = queue
			sent, err := p.SendSync(context.Background(), message)
			if err != nil {
				return "", err
			}
			if *sent.MessageQueue != *queue {
				return "", fmt.Errorf("sent to %v, stored in %v", queue, sent.MessageQueue)
			}
		}
		_, err = w.pushConsumer(w.name("group"), topic, everything(), func(m *primitive.MessageExt) {
			if strings.HasPrefix(m.GetKeys(), prefix) {
				l.receive(m)
			}
		})
		if err != nil {
			return "", err
		}
		if err := l.awaitExactly(deliveryMax); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("3, then 7 queues on each of %d brokers, each sent to and consumed", len(brokers)), nil
}

// A topic that nobody made comes into being with its first message.
func adminAutoCreate(w *world) (string, error) {
	const count = 200
	// The default of the client's option for it.
	const queuesWanted = 4
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	topic := w.name("topic")
	l := newLedger(topic)
	var offsets positions
	for i := 0; i < count; i++ {
		sent, err := p.SendSync(context.Background(), l.owe(fmt.Sprintf("auto-%d", i)))
		if err != nil {
			return "", err
		}
		if err := offsets.add(sent, 1); err != nil {
			return "", err
		}
	}
	if err := offsets.checkContiguous(count); err != nil {
		return "", err
	}
	brokers := map[string]bool{}
	for queue := range offsets.taken {
		brokers[queue.BrokerName] = true
	}
	queues, err := w.awaitRoute(topic, queuesWanted*len(brokers))
	if err != nil {
		return "", err
	}
	if err := checkQueueIDs(queues, queuesWanted); err != nil {
		return "", err
	}
	if _, err := w.pushConsumer(w.name("group"), topic, everything(), l.receive); err != nil {
		return "", err
	}
	if err := l.awaitExactly(deliveryMax); err != nil {
		return "", err
	}
	return fmt.Sprintf("made on %d brokers with %d queues each", len(brokers), queuesWanted), nil
}

// What the client can ask a NameServer for: topics, clusters, and a topic with unequal queue counts.
func adminLists(w *world) (string, error) {
	a, err := w.admin()
	if err != nil {
		return "", err
	}
	brokers, err := w.brokerAddresses()
	if err != nil {
		return "", err
	}
	topic := w.name("topic")
	var broker string
	for name := range brokers {
		broker = name
	}
	err = a.CreateTopic(context.Background(), admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(brokers[broker]),
		admin.WithReadQueueNums(3), admin.WithWriteQueueNums(2))
	if err != nil {
		return "", err
	}
	queues, err := w.awaitRoute(topic, 2)
	if err != nil {
		return "", err
	}
	for _, queue := range queues {
		if queue.BrokerName != broker {
			return "", fmt.Errorf("a topic of %s has %v", broker, queue)
		}
	}
	list, err := a.FetchAllTopicList(context.Background())
	if err != nil {
		return "", err
	}
	listed := map[string]bool{}
	for _, name := range list.TopicList {
		listed[name] = true
	}
	if !listed[topic] || !listed["TBW102"] {
		return "", fmt.Errorf("topics listed: %v", list.TopicList)
	}
	clusters, err := a.FetchClusterList(topic)
	if err != nil {
		return "", err
	}
	if len(clusters) != 1 || clusters[0] == "" {
		return "", fmt.Errorf("clusters of the topic: %q", clusters)
	}
	return fmt.Sprintf("cluster %s, %d topics", clusters[0], len(list.TopicList)), nil
}

// Each broker of the queues has ids from 0 on, count of them.
func checkQueueIDs(queues []*primitive.MessageQueue, count int) error {
	ids := map[string]map[int]bool{}
	for _, queue := range queues {
		if ids[queue.BrokerName] == nil {
			ids[queue.BrokerName] = map[int]bool{}
		}
		if queue.QueueId < 0 || queue.QueueId >= count || ids[queue.BrokerName][queue.QueueId] {
			return fmt.Errorf("%v, of %d", queue, count)
		}
		ids[queue.BrokerName][queue.QueueId] = true
	}
	for broker, found := range ids {
		if len(found) != count {
			return fmt.Errorf("%d queues on %s, not %d", len(found), broker, count)
		}
	}
	return nil
}
