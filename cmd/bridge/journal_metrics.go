package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// journalMetrics are the series of one sink's journal, all of one moment.
type journalMetrics struct {
	stats                                              func() durable.Stats
	waiting, kept, bytes, oldest, quarantined, keepCut *prometheus.Desc
}

func newJournalMetrics(sink string, stats func() durable.Stats) journalMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bridge_journal_"+name, help, nil, prometheus.Labels{"sink": sink})
	}
	return journalMetrics{
		stats:       stats,
		waiting:     desc("waiting", "Events in the journal that the sink has not acknowledged."),
		kept:        desc("kept", "Acknowledged events that the journal keeps until they are past doubt."),
		bytes:       desc("bytes", "Size of the journal on disk."),
		oldest:      desc("oldest_waiting_seconds", "For how long the event has waited that has waited longest; 0 if none waits."),
		quarantined: desc("quarantined_total", "Events and records that were set aside."),
		keepCut:     desc("keep_cut_total", "Acknowledged events that left a full journal before BRIDGE_JOURNAL_KEEP."),
	}
}

// Describe implements prometheus.Collector.
func (m journalMetrics) Describe(descs chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(m, descs)
}

// Collect implements prometheus.Collector.
func (m journalMetrics) Collect(metrics chan<- prometheus.Metric) {
	s := m.stats()
	gauge := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	gauge(m.waiting, float64(s.Waiting))
	gauge(m.kept, float64(s.Kept))
	gauge(m.bytes, float64(s.Bytes))
	gauge(m.oldest, s.OldestWaiting.Seconds())
	metrics <- prometheus.MustNewConstMetric(m.quarantined, prometheus.CounterValue, float64(s.Quarantined))
	metrics <- prometheus.MustNewConstMetric(m.keepCut, prometheus.CounterValue, float64(s.KeepCut))
}
