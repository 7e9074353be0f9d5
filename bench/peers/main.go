// A peer for the bench: the stream engine Benthos (core 4.60, MIT licence), with a Kafka input of
// our own on franz-go, because the core brings none. It decodes nothing and only marks offsets for
// commit, so it does less than a stock input would: whatever it costs favours the peer.
package main

import (
	"context"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

type input struct {
	options []kgo.Opt
	most    int
	client  *kgo.Client
}

func (in *input) Connect(context.Context) (err error) {
	in.client, err = kgo.NewClient(in.options...)
	return err
}

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	fetches := in.client.PollRecords(ctx, in.most)
	if err := fetches.Err(); err != nil {
		return nil, nil, err
	}
	records := fetches.Records()
	batch := make(service.MessageBatch, len(records))
	for n, record := range records {
		batch[n] = service.NewMessage(record.Value)
	}
	return batch, func(_ context.Context, err error) error {
		if err == nil {
			in.client.MarkCommitRecords(records...)
		}
		return nil
	}, nil
}

func (in *input) Close(context.Context) error {
	if in.client != nil {
		in.client.Close()
	}
	return nil
}

func main() {
	spec := service.NewConfigSpec().
		Field(service.NewStringField("broker")).
		Field(service.NewStringField("topic")).
		Field(service.NewStringField("group")).
		Field(service.NewIntField("batch"))
	construct := func(config *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
		var values [3]string
		for n, name := range []string{"broker", "topic", "group"} {
			value, err := config.FieldString(name)
			if err != nil {
				return nil, err
			}
			values[n] = value
		}
		most, err := config.FieldInt("batch")
		if err != nil {
			return nil, err
		}
		return service.AutoRetryNacksBatched(&input{most: most, options: []kgo.Opt{
			kgo.SeedBrokers(values[0]),
			kgo.ConsumeTopics(values[1]),
			kgo.ConsumerGroup(values[2]),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.AutoCommitMarks(),
		}}), nil
	}
	if err := service.RegisterBatchInput("franz", spec, construct); err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}
