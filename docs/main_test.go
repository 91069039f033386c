package docs_test

import (
	"testing"

	"github.com/gembridge/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { kafkatest.Main(m) }
