// Runs scenarios against a RocketMQ-compatible server, with the stock Go client, and prints one JSON line for each.
//
//	--namesrv HOST:PORT SCENARIO... [--together SCENARIO...]
//
// Those after --together mostly wait: several of them run at the same time, when the others are done. Nothing else is written to stdout.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// Above every deadline inside the scenarios; below the silence that the harness endures.
const scenarioMax = 150 * time.Second

const togetherMax = 8

// A scenario says in words what it found; an error means that it failed, a lacks that the client cannot do it.
type scenario func(w *world) (string, error)

type lacks string

func (l lacks) Error() string { return string(l) }

var scenarios = map[string]scenario{
	"sync":          sendSync,
	"async":         sendAsync,
	"oneway":        sendOneway,
	"batch":         sendBatch,
	"large":         sendLarge,
	"properties":    sendProperties,
	"clustering":    pushClustering,
	"broadcast":     pushBroadcast,
	"tag_filter":    pushTagFilter,
	"sql_filter":    clientLacks("the push consumer always pulls by tag"),
	"sql_error":     clientLacks("the push consumer always pulls by tag"),
	"ordered":       pushOrdered,
	"resume":        pushResume,
	"start_from":    pushStartFrom,
	"long_poll":     pushLongPoll,
	"pull":          pullPull,
	"search_offset": pullSearchOffset,
	"lite_pull":     pullPoll,
	"assign_seek":   pullAssignAndSeek,
	"create_topic":  adminCreateTopic,
	"auto_create":   adminAutoCreate,
	"admin":         adminLists,
	"unsupported":   clientLacks("no way to send a request of one's own"),
	"delay_level":   laterDelayLevel,
	"timer":         laterTimer,
	"recall":        clientLacks("no call for it"),
	"transaction":   laterTransaction,
	"tx_check":      laterTransactionCheck,
	"tx_limit":      laterTransactionLimit,
	"request_reply": requestReply,
	"limits":        sendLimits,
	"compressed":    clientLacks("one kind of compression, which `large` uses"),
	"auto_batch":    clientLacks("the producer batches what it is given as a batch only"),
	"inner_batch":   clientLacks("topics cannot be made with attributes"),
	"retry":         retryRetry,
	"retry_orderly": retryOrderly,
	"send_back":     clientLacks("no call for it"),
	"pop":           clientLacks("no pop consumer"),
	"pop_retry":     clientLacks("no pop consumer"),
	"pop_revive":    clientLacks("no pop consumer"),
	"reset_live":    clientLacks("no call for it"),
	"reset_offline": clientLacks("no call for it"),
	"skip_live":     clientLacks("no call for it"),
	"clone_offset":  clientLacks("no call for it"),
	"query":         clientLacks("no call for it"),
	"trace":         traceHooks,
	"consumers":     clientLacks("no call for it"),
	"remove":        adminRemove,
	"unregister":    clientLacks("no call that would show it; `clustering` needs it"),
	"notified":      clientLacks("no call that would show it; `clustering` needs it"),
	"namesrv_list":  namesrvList,
}

func clientLacks(why string) scenario {
	return func(*world) (string, error) { return "", lacks(why) }
}

func main() {
	if len(os.Args) < 4 || os.Args[1] != "--namesrv" {
		fmt.Fprintln(os.Stderr, "--namesrv HOST:PORT SCENARIO... [--together SCENARIO...]")
		os.Exit(2)
	}
	rlog.SetLogLevel("warn")
	runID := strconv.FormatInt(time.Now().UnixMilli(), 36)
	one, together := os.Args[3:], []string{}
	for i, name := range one {
		if name == "--together" {
			one, together = one[:i], one[i+1:]
			break
		}
	}
	for _, name := range one {
		run(name, newWorld(os.Args[2], name+"-"+runID))
	}
	var group sync.WaitGroup
	turns := make(chan struct{}, togetherMax)
	for _, name := range together {
		group.Add(1)
		go func(name string) {
			defer group.Done()
			turns <- struct{}{}
			run(name, newWorld(os.Args[2], name+"-"+runID))
			<-turns
		}(name)
	}
	group.Wait()
}

func run(name string, w *world) {
	begun := time.Now()
	type result struct {
		detail string
		err    error
	}
	results := make(chan result, 1)
	go func() {
		chosen, ok := scenarios[name]
		if !ok {
			results <- result{err: errors.New("no such scenario")}
			return
		}
		detail, err := chosen(w)
		results <- result{detail, err}
	}()
	var found result
	select {
	case found = <-results:
	case <-time.After(scenarioMax):
		found.err = fmt.Errorf("did not end within %v", scenarioMax)
	}
	w.close()

	line := map[string]interface{}{"scenario": name}
	var missing lacks
	switch {
	case errors.As(found.err, &missing):
		line["lacks"] = string(missing)
	default:
		line["ok"] = found.err == nil
		line["seconds"] = time.Since(begun).Seconds()
		line["detail"] = found.detail
		if found.err != nil {
			line["detail"] = found.err.Error()
		}
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}
