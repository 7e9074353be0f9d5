using System;
using System.Collections.Concurrent;
using System.Collections.Generic;

/// <summary>An event and its JSON.</summary>
public sealed class Event
{
    public Event(string id, string json)
    {
        Id = id;
        Json = json;
    }

    public string Id { get; }
    public string Json { get; }
}

/// <summary>Takes each event once and has it handled in the background, in the order of arrival.</summary>
public sealed class Inbox
{
    private const int MaxIds = 10000;
    private const int MaxWaiting = 1000;

    private readonly object guard = new object();
    private readonly HashSet<string> seen = new HashSet<string>();
    private readonly Queue<string> order = new Queue<string>(); // of seen
    private readonly Queue<string> processed = new Queue<string>();
    private readonly BlockingCollection<Event> waiting = new BlockingCollection<Event>(MaxWaiting);
    private readonly Action<Event> handle;

    public Inbox(Action<Event> handle)
    {
        this.handle = handle;
    }

    /// <summary>False when there is no room: the sender must come again.</summary>
    public bool Take(Event one)
    {
        lock (guard)
        {
            if (seen.Contains(one.Id))
            {
                Console.Error.WriteLine("repeated " + one.Id);
                return true;
            }
            if (!waiting.TryAdd(one)) return false;
            seen.Add(one.Id);
            order.Enqueue(one.Id);
            if (order.Count > MaxIds) seen.Remove(order.Dequeue());
            return true;
        }
    }

    /// <summary>Handles what was taken, one after the other, for ever.</summary>
    public void Work()
    {
        foreach (Event one in waiting.GetConsumingEnumerable())
        {
            try
            {
                handle(one);
            }
            catch (Exception error)
            {
                Console.Error.WriteLine("failed " + one.Id + ": " + error);
            }
            lock (guard)
            {
                processed.Enqueue(one.Id);
                if (processed.Count > MaxIds) processed.Dequeue();
            }
        }
    }

    public string[] Processed()
    {
        lock (guard) return processed.ToArray();
    }
}
