package journal_test

import (
	"fmt"
	"os"

	"github.com/gembridge/bridge/pkg/journal"
)

func ExampleScan() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	l, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 64 << 20})
	if err != nil {
		return
	}
	defer l.Close()
	for _, p := range []string{"one", "two"} {
		if _, err := l.Append([]byte(p)); err != nil {
			return
		}
	}
	l.Settle(1)
	_ = l.Sync()
	report, _ := journal.Scan(dir, func(r journal.Record) error {
		fmt.Printf("%d %s settled=%t\n", r.Seq, r.Payload, r.Settled)
		return nil
	})
	fmt.Println(report.Records, "waits,", report.Settled, "settled")
	// Output:
	// 1 one settled=true
	// 2 two settled=false
	// 1 waits, 1 settled
}
